//! What others' published schemas say of a request.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static CHAT: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../schemas/openai-chat-completions.json")));
static EMBEDDINGS: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../schemas/openai-embeddings.json")));

fn validator(schema: &str) -> Validator {
    let schema = serde_json::from_str(schema).expect("a schema of this repository is JSON");
    jsonschema::validator_for(&schema).expect("a schema of this repository is one")
}

/// What OpenAI's published schema finds wrong with a body for `/chat/completions`, each with where; empty if nothing is.
pub fn chat_completion(body: &Value) -> Vec<String> {
    let mut found = errors(&CHAT, body);
    let format = &body["response_format"]["json_schema"];
    if format["strict"] == true {
        optional(&format["schema"], "", &mut found);
    }
    found
}

/// What OpenAI's published schema finds wrong with a body for `/embeddings`, each with where; empty if nothing is.
pub fn embeddings(body: &Value) -> Vec<String> {
    errors(&EMBEDDINGS, body)
}

fn errors(validator: &Validator, body: &Value) -> Vec<String> {
    validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// In strict mode an object requires all its properties.
fn optional(schema: &Value, path: &str, found: &mut Vec<String>) {
    let required = schema["required"].as_array();
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if !required.is_some_and(|required| required.contains(&name.as_str().into())) {
            found.push(format!("{path}/{name}: not required, which strict mode does not allow"));
        }
        optional(inner, &format!("{path}/{name}"), found);
    }
    if schema["items"].is_object() {
        optional(&schema["items"], &format!("{path}/items"), found);
    }
    for (at, inner) in schema["anyOf"].as_array().into_iter().flatten().enumerate() {
        optional(inner, &format!("{path}/anyOf/{at}"), found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(schema: Value) -> Value {
        json!({
            "model": "m1",
            "messages": [{ "role": "system", "content": "a" }, { "role": "user", "content": "b" }],
            "response_format": {
                "type": "json_schema",
                "json_schema": { "name": "record", "strict": true, "schema": schema },
            },
        })
    }

    fn closed(properties: Value, required: Value) -> Value {
        json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        })
    }

    #[test]
    fn a_chat_completion_is_taken_only_as_it_is_published() {
        let text = json!({ "type": ["string", "null"] });
        let list = json!({ "type": "array", "items": closed(json!({ "b": text }), json!(["b"])) });
        let good = chat(closed(json!({ "a": list }), json!(["a"])));
        assert_eq!(chat_completion(&good), [""; 0]);
        for format in ["text", "json_object"] {
            let mut plain = good.clone();
            plain["response_format"] = json!({ "type": format });
            assert_eq!(chat_completion(&plain), [""; 0]);
        }
        type Spoil = fn(&mut Value);
        let spoils: [Spoil; 9] = [
            |body| body["model"] = Value::Null,
            |body| body["messages"] = json!([]),
            |body| body["messages"][0]["role"] = "robot".into(),
            |body| body["messages"][0]["refusal"] = "no".into(),
            |body| body["temprature"] = 0.into(),
            |body| body["temperature"] = 3.into(),
            |body| body["response_format"]["type"] = "json".into(),
            |body| body["response_format"]["json_schema"]["name"] = "a record".into(),
            |body| body["response_format"]["json_schema"]["schema"] = json!({ "type": "object" }),
        ];
        for (at, spoil) in spoils.into_iter().enumerate() {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(!chat_completion(&bad).is_empty(), "{at}: {bad}");
        }
        let lax = chat(closed(json!({ "a": text, "b": text }), json!(["a"])));
        assert_eq!(chat_completion(&lax), ["/b: not required, which strict mode does not allow"]);
    }

    #[test]
    fn embeddings_are_taken_only_as_they_are_published() {
        for input in [json!("a"), json!(["a", "b"]), json!([1, 2]), json!([[1], [2]])] {
            assert_eq!(embeddings(&json!({ "model": "m1", "input": input })), [""; 0]);
        }
        for input in [json!(""), json!([]), json!(["a", ""]), json!([1, "a"]), Value::Null] {
            assert!(!embeddings(&json!({ "model": "m1", "input": input })).is_empty(), "{input}");
        }
        let bad = json!({ "model": "m1", "input": "a", "dimension": 3 });
        assert!(!embeddings(&bad).is_empty());
    }
}
