//! Action items and memories in a form to take away.

use std::fmt::Write as _;

use auricle_wire::rest::{ActionItem, Memory};
use auricle_wire::time::WireTime;
use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::Refusal;

/// Records of one export. Full: the newest are exported. A person makes some in a day.
pub(super) const EXPORT_MAX: usize = 100_000;

/// In which form.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// `json` (if absent), `markdown`, or `csv` where there are columns.
    format: Option<String>,
}

/// A form that exports have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Markdown,
    Csv,
}

impl ExportQuery {
    /// The form asked for, of those that there are.
    pub(super) fn format(&self, known: &[(&str, Format)]) -> Result<Format, Refusal> {
        let asked = self.format.as_deref().unwrap_or("json");
        known.iter().find(|(name, _)| *name == asked).map(|(_, format)| *format).ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            Refusal::invalid(format!("Formats are {}", names.join(", ")))
        })
    }
}

pub(super) fn action_items(items: Vec<ActionItem>, format: Format) -> Response {
    match format {
        Format::Json => Json(items).into_response(),
        Format::Markdown => text("text/markdown; charset=utf-8", action_items_markdown(&items)),
        Format::Csv => text("text/csv; charset=utf-8", action_items_csv(&items)),
    }
}

pub(super) fn memories(memories: Vec<Memory>, format: Format) -> Response {
    match format {
        Format::Json | Format::Csv => Json(memories).into_response(),
        Format::Markdown => text("text/markdown; charset=utf-8", memories_markdown(&memories)),
    }
}

fn text(kind: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn action_items_markdown(items: &[ActionItem]) -> String {
    let mut page = String::from("# Action items\n\n");
    for item in items {
        let mark = if item.completed { 'x' } else { ' ' };
        let due = item.due_at.map(|at| format!(" (due {at})")).unwrap_or_default();
        let _ = writeln!(page, "- [{mark}] {}{due}", line(&item.description));
    }
    page
}

fn memories_markdown(memories: &[Memory]) -> String {
    let mut page = String::from("# Memories\n\n");
    for memory in memories {
        let _ = writeln!(page, "- {}", line(&memory.text));
    }
    page
}

/// What was heard stays one item of one list.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// RFC 4180.
fn action_items_csv(items: &[ActionItem]) -> String {
    let mut table = String::from(
        "id,description,completed,created_at,updated_at,due_at,completed_at,conversation_id\r\n",
    );
    let time = |at: Option<WireTime>| at.map(|at| at.to_string()).unwrap_or_default();
    for item in items {
        let row = [
            field(&item.id),
            field(&item.description),
            item.completed.to_string(),
            item.created_at.to_string(),
            item.updated_at.to_string(),
            time(item.due_at),
            time(item.completed_at),
            field(item.conversation_id.as_deref().unwrap_or_default()),
        ];
        let _ = write!(table, "{}\r\n", row.join(","));
    }
    table
}

/// In quotes. What a spreadsheet would take for a formula is made text: these words were heard from anybody.
fn field(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(description: &str, completed: bool) -> ActionItem {
        ActionItem {
            id: "i1".into(),
            description: description.into(),
            completed,
            created_at: WireTime(0),
            updated_at: WireTime(0),
            due_at: Some(WireTime(0)),
            completed_at: None,
            conversation_id: None,
            edited: false,
        }
    }

    #[test]
    fn csv_quotes_what_would_break_it_and_defuses_formulas() {
        let table = action_items_csv(&[item("Say \"hi\", then\ngo", true), item("=1+1", false)]);
        let rows: Vec<_> = table.split("\r\n").collect();
        let epoch = "1970-01-01T00:00:00.000000Z";
        assert_eq!(
            rows[1],
            format!("\"i1\",\"Say \"\"hi\"\", then\ngo\",true,{epoch},{epoch},{epoch},,\"\"")
        );
        assert!(rows[2].contains("\"'=1+1\""), "{}", rows[2]);
    }

    #[test]
    fn markdown_is_a_list_to_tick_off() {
        let page = action_items_markdown(&[item("Call\nAnn", true)]);
        assert_eq!(page, "# Action items\n\n- [x] Call Ann (due 1970-01-01T00:00:00.000000Z)\n");
    }
}
