//! Checks JSON against the part of JSON Schema that the OpenAPI document uses. An unknown keyword is a failure, so that
//! nothing goes unchecked; so is a field that the schema does not name.

use serde_json::Value;

const KNOWN: [&str; 18] = [
    "$ref",
    "type",
    "properties",
    "required",
    "items",
    "prefixItems",
    "oneOf",
    "allOf",
    "format",
    "description",
    "minimum",
    "default",
    "example",
    "examples",
    "additionalProperties",
    "propertyNames",
    "enum",
    "title",
];

/// Adds to `wrong` what of `value` does not fit `schema`.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let mut fail = |what: String| wrong.push(format!("{at}: {what}"));
    let Some(rules) = schema.as_object() else { return };
    for keyword in rules.keys().filter(|keyword| !KNOWN.contains(&keyword.as_str())) {
        fail(format!("the checker does not know `{keyword}`"));
    }
    if let Some(reference) = rules.get("$ref").and_then(Value::as_str) {
        let target =
            document.pointer(reference.trim_start_matches('#')).expect("the reference leads somewhere");
        return check(document, target, value, at, wrong);
    }
    if let Some(choices) = rules.get("oneOf").and_then(Value::as_array) {
        if !choices.iter().any(|choice| fits(document, choice, value)) {
            fail(format!("{} fits none of its {} forms", brief(value), choices.len()));
        }
        return;
    }
    for part in rules.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        check(document, part, value, at, wrong);
    }
    if !rules.get("type").is_none_or(|kind| is_of(kind, value)) {
        return wrong.push(format!("{at}: {} is not {}", brief(value), rules["type"]));
    }
    if rules.get("minimum").and_then(Value::as_f64).is_some_and(|min| value.as_f64().is_some_and(|v| v < min))
    {
        wrong.push(format!("{at}: {} is too small", brief(value)));
    }
    if let Some(list) = value.as_array() {
        let fixed = rules.get("prefixItems").and_then(Value::as_array);
        let item = |n: usize| fixed.and_then(|fixed| fixed.get(n)).or(rules.get("items"));
        for (n, element) in list.iter().enumerate() {
            if let Some(schema) = item(n) {
                check(document, schema, element, &format!("{at}[{n}]"), wrong);
            }
        }
    }
    fields(document, schema, value, at, wrong);
}

fn fields(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            wrong.push(format!("{at}: `{name}` is missing"));
        }
    }
    for (name, field) in fields {
        match known.get(name) {
            Some(schema) => check(document, schema, field, &format!("{at}.{name}"), wrong),
            None => wrong.push(format!("{at}: `{name}` is not documented")),
        }
    }
}

fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    let mut wrong = Vec::new();
    check(document, schema, value, "", &mut wrong);
    wrong.is_empty()
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
        kind => match kind.as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("null") => value.is_null(),
            _ => false,
        },
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// Calls `each` with every `$ref` of `value`.
pub(crate) fn references(value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(reference) if name == "$ref" => each(reference),
                    _ => references(field, each),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| references(item, each)),
        _ => {}
    }
}
