//! Progress bars on standard error, where a person watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts bytes. Shows nothing where standard error is no terminal.
pub(crate) fn bytes(what: &'static str) -> ProgressBar {
    let template =
        "{msg:>10} {wide_bar:.green/dim} {bytes} of {total_bytes}  {bytes_per_sec}  {eta}";
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    // The template is a constant that indicatif reads.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar.with_message(what)
}

/// A sign that something is being waited for, with how long.
pub(crate) fn waiting() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.dim} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar that counts the ended jobs of an array.
pub(crate) fn jobs(count: u32) -> ProgressBar {
    let template = "{wide_bar:.green/dim} {pos} of {len} jobs  {msg}";
    let bar = ProgressBar::with_draw_target(Some(count.into()), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar
}

/// A callback that moves a bar.
pub(crate) fn moves(bar: &ProgressBar) -> impl Fn(u64, u64) + Send + Sync + 'static {
    let bar = bar.clone();
    move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    }
}
