//! The tray: the real app, its icon and its menu over D-Bus.

use crate::{
    desk::{Desk, eventually},
    pool::Pool,
    tray_host::TrayHost,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_in_no_pool_offers_the_window_and_the_end() {
    let desk = Desk::start().await;
    let mut tray = TrayHost::start(desk.bus_address()).await;
    let mut app = desk.start_app(&["--hidden"]);
    let icon = tray.icon(&app).await;

    let expected = ["Not in a pool yet", "-", "Open Lull", "-", "Quit"];
    eventually("the menu is there", async || (icon.words().await == expected).then_some(())).await;
    assert!(!icon.menu().await[0].enabled, "the status line cannot be chosen");
    let image = icon.image().await;
    let private = desk.data_dir().join("tray");
    assert!(image.starts_with(private.to_str().unwrap()), "{image}");
    assert!(std::path::Path::new(&image).is_file(), "{image}");
    assert!(desk.windows().is_empty(), "nobody asked for the window");

    icon.click("Quit").await;
    assert_eq!(app.ends().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_becomes_resume_and_back_and_is_kept() {
    let pool = Pool::start().await;
    let desk = Desk::start().await;
    pool.take_in(&desk.data_dir()).await;
    let mut tray = TrayHost::start(desk.bus_address()).await;
    let mut app = desk.start_app(&["--hidden"]);
    let icon = tray.icon(&app).await;

    eventually("the PC can be paused", async || {
        icon.words().await.contains(&"Pause".to_owned()).then_some(())
    })
    .await;
    icon.click("Pause").await;
    let paused = ["Paused", "-", "Resume", "Open Lull", "-", "Quit"];
    eventually("it says so", async || (icon.words().await == paused).then_some(())).await;

    // A log-out and a log-in later it is still paused.
    app.terminate().await;
    assert_eq!(app.ends().await.code(), Some(0));
    let mut app = desk.start_app(&["--hidden"]);
    let icon = tray.icon(&app).await;
    eventually("it is still paused", async || (icon.words().await == paused).then_some(())).await;

    icon.click("Resume").await;
    eventually("it can be paused again", async || {
        icon.words().await.contains(&"Pause".to_owned()).then_some(())
    })
    .await;
    icon.click("Quit").await;
    assert_eq!(app.ends().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_window_keeps_the_tray_and_the_window_comes_back() {
    let desk = Desk::start().await;
    let mut tray = TrayHost::start(desk.bus_address()).await;
    let mut app = desk.start_app(&[]);
    let icon = tray.icon(&app).await;
    let window = desk.window_opens().await;

    desk.close(window);
    desk.window_is_gone().await;
    icon.click("Open Lull").await;
    desk.window_opens().await;
    assert!(app.is_running());

    icon.click("Quit").await;
    assert_eq!(app.ends().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_shows_the_window_of_the_first() {
    let desk = Desk::start().await;
    let mut tray = TrayHost::start(desk.bus_address()).await;
    let mut first = desk.start_app(&["--hidden"]);
    tray.icon(&first).await;

    let mut second = desk.start_app(&[]);
    assert_eq!(second.ends().await.code(), Some(0));
    desk.window_opens().await;
    assert!(first.is_running());
    first.terminate().await;
    assert_eq!(first.ends().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tray_the_window_opens_although_it_was_to_stay_hidden() {
    let desk = Desk::start().await;
    let mut app = desk.start_app(&["--hidden"]);
    desk.window_opens().await;
    app.terminate().await;
    assert_eq!(app.ends().await.code(), Some(0));
}
