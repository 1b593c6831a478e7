//! A disk that is full at start, and one that fills up while the store is open: a real small file system of its own.
//! One test alone in its process, because it moves its thread into a mount namespace.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use yodel_store::{SledStore, Store, StoreError, StoreOptions};
use yodel_wire::machine::Write;

const SIZE: &str = "size=12m";

fn small_file_system(at: &Path) -> Result<(), String> {
    fs::create_dir_all(at).map_err(|e| e.to_string())?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare: {e}"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| format!("private: {e}"))?;
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(SIZE)).map_err(|e| format!("tmpfs: {e}"))
}

fn fill(path: &Path) {
    let mut size = 1 << 20;
    let mut content = Vec::new();
    while size > 0 {
        let longer = [content.clone(), vec![7u8; size]].concat();
        match fs::write(path, &longer) {
            Ok(()) => content = longer,
            Err(_) => size /= 2,
        }
    }
    let _ = fs::write(path, &content);
}

fn write(n: u32) -> Write {
    Write { tree: "accounts", key: n.to_be_bytes().to_vec(), value: Some(vec![1; 500]), journaled: true }
}

#[test]
fn a_full_disk_is_said_in_words_and_loses_nothing() {
    let mount_point = std::env::temp_dir().join(format!("yodel-full-disk-{}", std::process::id()));
    if let Err(why) = small_file_system(&mount_point) {
        eprintln!("NOT TESTED: a full disk needs a small file system, which needs root here: {why}");
        return;
    }
    let dir = mount_point.join("store");
    let ballast = mount_point.join("ballast");

    // Full at the very first start.
    fill(&ballast);
    match SledStore::open(&dir, StoreOptions::LOGIN_SERVER) {
        Err(error @ StoreError::DiskFull { .. }) => assert!(error.to_string().contains("disk full")),
        other => panic!("{other:?}"),
    }
    fs::remove_file(&ballast).unwrap();

    // Fills up while open: commits fail, nothing breaks, and they go on when there is room.
    let mut store = SledStore::open(&dir, StoreOptions::LOGIN_SERVER).unwrap();
    store.commit(&[write(1)]).unwrap();
    fill(&ballast);
    for n in 2..10 {
        assert!(matches!(store.commit(&[write(n)]), Err(StoreError::DiskFull { .. })));
    }
    fs::remove_file(&ballast).unwrap();
    store.commit(&[write(10)]).unwrap();
    drop(store);

    // Full at a later start: the error again, and all is there once there is room.
    fill(&ballast);
    assert!(matches!(
        SledStore::open(&dir, StoreOptions::LOGIN_SERVER),
        Err(StoreError::DiskFull { .. } | StoreError::Locked { .. })
    ));
    fs::remove_file(&ballast).unwrap();
    let store = SledStore::open(&dir, StoreOptions::LOGIN_SERVER).unwrap();
    let keys: Vec<_> = store.scan("accounts").unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [1u32.to_be_bytes().to_vec(), 10u32.to_be_bytes().to_vec()]);
}
