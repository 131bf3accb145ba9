//! The API reference as one page of HTML, made of the API document alone: no script, nothing from elsewhere.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("reference.css");

/// What the page may use: its own style, recognised by its hash, and nothing else.
pub(crate) fn policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The page of a document.
pub(crate) fn page(document: &Value) -> String {
    let info = &document["info"];
    let title = text(&info["title"]);
    let (mut nav, mut main) = (String::new(), String::new());
    let operations = operations(document);
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = text(&tag["name"]);
        section(&mut nav, &mut main, &name, &text(&tag["description"]));
        for (method, path, operation) in
            operations.iter().filter(|(_, _, o)| tagged(o, &tag["name"]))
        {
            let id = text(&operation["operationId"]);
            put(
                &mut nav,
                format_args!(
                    "<a href=\"#{id}\"><span class=\"method {method}\">{}</span> {}</a>",
                    method.to_uppercase(),
                    escape(path)
                ),
            );
            put(&mut main, format_args!("{}", operation_html(method, path, operation)));
        }
    }
    section(&mut nav, &mut main, "types", "What travels in bodies and events");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let name = escape(name);
        put(&mut nav, format_args!("<a href=\"#{name}\">{name}</a>"));
        put(
            &mut main,
            format_args!(
                "<article id=\"{name}\"><h3><code>{name}</code></h3>{}{}</article>",
                prose(&schema["description"]),
                shape(schema)
            ),
        );
    }
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title} API</title><style>{STYLE}</style></head><body><nav>{nav}</nav><main><h1>{title} API</h1>\
         <p class=soft>Version {} · <a href=\"/api/openapi.json\">openapi.json</a></p>{}{main}</main></body></html>",
        text(&info["version"]),
        prose(&info["description"]),
    )
}

fn section(nav: &mut String, main: &mut String, name: &str, description: &str) {
    put(nav, format_args!("<strong>{name}</strong>"));
    put(main, format_args!("<h2>{name}</h2><p class=soft>{description}</p>"));
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let mut found = Vec::new();
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item) {
            found.push((method.as_str(), path.as_str(), operation));
        }
    }
    found
}

fn tagged(operation: &Value, tag: &Value) -> bool {
    operation["tags"].as_array().is_some_and(|tags| tags.contains(tag))
}

fn operation_html(method: &str, path: &str, operation: &Value) -> String {
    let mut html = format!(
        "<article id=\"{}\"><h3><span class=\"method {method}\">{}</span> <code>{}</code></h3><p><strong>{}</strong></p>{}",
        text(&operation["operationId"]),
        method.to_uppercase(),
        escape(path),
        inline(operation["summary"].as_str().unwrap_or_default()),
        prose(&operation["description"]),
    );
    let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    if !parameters.is_empty() {
        html.push_str("<h4>Parameters</h4><table>");
        for parameter in parameters {
            let required = parameter["required"] == true;
            row(
                &mut html,
                &parameter["name"],
                required,
                &parameter["schema"],
                &parameter["description"],
            );
        }
        html.push_str("</table>");
    }
    let body = contents(&operation["requestBody"]);
    if !body.is_empty() {
        put(&mut html, format_args!("<h4>Body</h4><p>{body}</p>"));
    }
    html.push_str("<h4>Replies</h4><table>");
    for (status, response) in members(&operation["responses"]) {
        let (what, carries) = (text(&response["description"]), contents(response));
        let what = inline_escaped(&what);
        put(
            &mut html,
            format_args!("<tr><th>{}</th><td>{what}</td><td>{carries}</td></tr>", escape(status)),
        );
    }
    html.push_str("</table></article>");
    html
}

/// The media types of a body and what each carries.
fn contents(body: &Value) -> String {
    let kinds = members(&body["content"]).map(|(media, content)| {
        format!("{} <span class=soft>{}</span>", kind(&content["schema"]), escape(media))
    });
    kinds.collect::<Vec<_>>().join("<br>")
}

/// The fields, values or forms of a type.
fn shape(schema: &Value) -> String {
    let mut html = String::new();
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let fields: Vec<_> = members(&schema["properties"]).collect();
    if !fields.is_empty() {
        html.push_str("<table>");
        for (name, field) in fields {
            let name = Value::from(name.as_str());
            row(&mut html, &name, required.contains(&name), field, &field["description"]);
        }
        html.push_str("</table>");
    } else if let Some(forms) = schema["oneOf"].as_array() {
        for form in forms {
            put(&mut html, format_args!("{}{}", prose(&form["description"]), shape(form)));
        }
    } else {
        put(&mut html, format_args!("<p>{}</p>", kind(schema)));
    }
    html
}

fn row(html: &mut String, name: &Value, required: bool, schema: &Value, description: &Value) {
    let needed = if required { "" } else { " <span class=soft>optional</span>" };
    put(
        html,
        format_args!(
            "<tr><th><code>{}</code>{needed}</th><td>{}</td><td>{}</td></tr>",
            text(name),
            kind(schema),
            inline(description.as_str().unwrap_or_default()),
        ),
    );
}

/// A type in one line.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("<code>{}</code>", text(value)))
            .collect::<Vec<_>>()
            .join(" ");
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(forms) = schema[several].as_array() {
            let some = forms.iter().filter(|form| form["type"] != "null");
            return some.map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    let several = schema["type"].as_array().map(Vec::as_slice);
    let types = several.unwrap_or(std::slice::from_ref(&schema["type"]));
    let names: Vec<&str> =
        types.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
    match names.first() {
        Some(&"array") => format!("list of {}", kind(&schema["items"])),
        Some(&"object") if !schema["additionalProperties"].is_null() => "map".to_owned(),
        Some(name) => escape(name),
        None => "anything".to_owned(),
    }
}

fn prose(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    if text.is_empty() { String::new() } else { format!("<p>{}</p>", inline(text)) }
}

/// Escapes a text and sets what stands between backticks as code.
fn inline(text: &str) -> String {
    inline_escaped(&escape(&text.replace("[`", "`").replace("`]", "`")))
}

fn inline_escaped(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        if index % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }
    });
    parts.collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(String::new, escape)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn put(html: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = html.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_operation_and_type_and_runs_nothing() {
        let document = serde_json::to_value(crate::routes::api_document()).unwrap();
        let page = page(&document);
        for (_, path, operation) in operations(&document) {
            assert!(
                page.contains(&format!("id=\"{}\"", text(&operation["operationId"]))),
                "{path}"
            );
        }
        for (name, _) in members(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        assert!(!page.contains("<script") && !page.contains("style="), "only its own style sheet");
    }

    #[test]
    fn what_the_document_says_is_text_and_no_markup() {
        assert_eq!(inline("a <b> & `x<y`"), "a &lt;b&gt; &amp; <code>x&lt;y</code>");
    }
}
