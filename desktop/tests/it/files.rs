//! Files to a real coordinator and home again.

use std::{
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lull_desktop::files::{self, Picks};
use lull_shared::{
    client::{Client, Trust},
    ids::Digest,
    problem::ProblemKind,
};

use crate::pool::Pool;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_goes_up_once_and_comes_home_beside_what_is_there() {
    let pool = Pool::start().await;
    let client = client(&pool).await;
    let home = tempfile::tempdir().unwrap();
    let project = home.path().join("project");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(project.join("data.bin"), vec![7; 300_000]).unwrap();
    let picks = Picks::open(home.path().join("packing")).unwrap();
    let picked = picks.add(project).await.unwrap();

    let sent = Arc::new(AtomicU64::new(0));
    let mut uploads = Vec::new();
    for _ in 0..2 {
        let zip = picks.zip(&picked.pick_id).await.unwrap();
        let heard = Arc::clone(&sent);
        let progress = move |bytes, _total| heard.store(bytes, Ordering::Relaxed);
        uploads.push(files::upload(&client, &zip, progress).await.unwrap());
        if uploads.len() == 1 {
            assert_eq!(sent.swap(0, Ordering::Relaxed), uploads[0].size_bytes);
        }
    }
    assert_eq!(uploads[0], uploads[1], "the same folder is the same file");
    assert_eq!(uploads[0].filename, "project.zip");
    assert_eq!(sent.load(Ordering::Relaxed), 0, "nothing goes up a second time");

    let downloads = home.path().join("Downloads");
    let digest = uploads[0].digest;
    for name in ["out.zip", "out (2).zip"] {
        let path = files::save(&client, digest, "out.zip", &downloads, |_, _| {}).await.unwrap();
        assert_eq!(path, downloads.join(name));
        let mut head = [0; 2];
        std::fs::File::open(path).unwrap().read_exact(&mut head).unwrap();
        assert_eq!(&head, b"PK");
    }
    let nothing = Digest::of(b"never uploaded");
    let missing = files::save(&client, nothing, "x", &downloads, |_, _| {}).await.unwrap_err();
    assert_eq!(missing.kind, ProblemKind::NotFound);
    assert_eq!(std::fs::read_dir(downloads).unwrap().count(), 2, "nothing half is left behind");
}

async fn client(pool: &Pool) -> Client {
    let code = pool.admin(&["join-code"]).await;
    let pin = code.split('.').nth(1).unwrap().parse().unwrap();
    let ca = Client::fetch_ca(&[&pool.url], pin).await.unwrap();
    let token = pool.admin(&["token", "--role", "submitter"]).await;
    Client::new(&[&pool.url], Trust::CaPem(ca)).unwrap().with_token(token.into())
}
