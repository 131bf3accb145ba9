//! `docs/api.md` is made from the API document; set `UPDATE=1` to write it instead of failing.

use std::{fmt::Write as _, fs, path::Path};

use lull_coordinator::routes::api_document_json;
use serde_json::{Map, Value};

const HEAD: &str = "# API reference

Made from `coordinator/openapi.json` by `UPDATE=1 cargo test -p lull-coordinator api_page`. A running coordinator serves the same
at `/api/docs` with every status, and the document itself at `/api/openapi.json`.

Times are milliseconds since the epoch, ids are UUIDs, files are named by their SHA-256. Tokens go into `Authorization: Bearer …`.
A failure is a problem document (RFC 9457, `application/problem+json`); branch on its `kind`.
";

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE=1 rewrites the committed file")]
fn the_api_page_is_current() {
    let document: Value = serde_json::from_str(&api_document_json()).unwrap();
    let page = page(&document);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    if std::env::var("UPDATE").is_ok() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/api.md is stale: UPDATE=1 cargo test -p lull-coordinator api_page"
    );
}

fn page(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Endpoints\n");
    for (address, methods) in object(&document["paths"]) {
        for (method, operation) in object(methods) {
            write!(page, "\n### `{} {address}`\n\n", method.to_uppercase()).unwrap();
            let summary = text(&operation["summary"]);
            let more = text(&operation["description"]);
            writeln!(page, "{summary}").unwrap();
            if !more.is_empty() {
                write!(page, "\n{more}\n").unwrap();
            }
            parameters(&mut page, operation);
            let body = &operation["requestBody"]["content"];
            for (media, content) in object(body) {
                write!(page, "\nBody: `{media}`, {}\n", type_of(&content["schema"])).unwrap();
            }
            let statuses: Vec<_> =
                object(&operation["responses"]).map(|(status, _)| format!("`{status}`")).collect();
            write!(page, "\nReplies: {}\n", statuses.join(" ")).unwrap();
        }
    }
    page.push_str("\n## Types\n");
    for (name, schema) in object(&document["components"]["schemas"]) {
        write!(page, "\n### {name}\n\n{}\n", text(&schema["description"])).unwrap();
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<_> = values.iter().map(|value| format!("`{}`", text(value))).collect();
            write!(page, "\nOne of {}\n", values.join(" ")).unwrap();
        }
        if schema["properties"].is_object() {
            page.push_str("\n| field | type | what |\n| --- | --- | --- |\n");
            for (field, of) in object(&schema["properties"]) {
                writeln!(page, "| `{field}` | {} | {} |", type_of(of), cell(&of["description"]))
                    .unwrap();
            }
        }
    }
    page
}

fn parameters(page: &mut String, operation: &Value) {
    let Some(parameters) = operation["parameters"].as_array() else { return };
    page.push_str("\n| parameter | in | what |\n| --- | --- | --- |\n");
    for parameter in parameters {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        writeln!(page, "| `{name}` | {place} | {} |", cell(&parameter["description"])).unwrap();
    }
}

/// A schema in a word or two.
fn type_of(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(choices) =
        schema["oneOf"].as_array().or(schema["anyOf"].as_array()).or(schema["allOf"].as_array())
    {
        let names: Vec<_> = choices.iter().map(type_of).filter(|name| name != "null").collect();
        return names.join(" or ");
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => format!("list of {}", type_of(&schema["items"])),
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => {
            kinds.iter().map(text).filter(|kind| *kind != "null").collect::<Vec<_>>().join(" or ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "object".to_owned(),
    }
}

fn cell(value: &Value) -> String {
    text(value).replace('\n', " ").replace('|', "\\|")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}
