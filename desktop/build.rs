//! Tells Tauri which commands exist, so that each needs its permission in `capabilities/main.json`.

const COMMANDS: &[&str] = &[
    "session",
    "sign_in",
    "sign_out",
    "api_request",
    "follow_output",
    "follow_pool",
    "stop_following",
    "pick_files",
    "upload_picked",
    "save_artifact",
    "run_direct",
    "local_status",
    "set_paused",
    "join",
    "local_history",
];

fn main() {
    let manifest = tauri_build::AppManifest::new().commands(COMMANDS);
    tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest))
        .expect("tauri.conf.json, the capabilities and the icons are right");
}
