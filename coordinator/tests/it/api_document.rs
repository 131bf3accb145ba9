//! The committed API document is the one the route table makes.

use std::{fs, path::Path};

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE=1 rewrites the committed file")]
fn api_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = lull_coordinator::routes::api_document_json();
    if std::env::var("UPDATE").is_ok_and(|update| update == "1") {
        fs::write(&path, &made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == committed,
        "openapi.json is stale; rewrite it with: UPDATE=1 cargo test -p lull-coordinator api_document"
    );
}
