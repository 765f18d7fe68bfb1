//! Whole files of audio, plain and sealed.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use auricle_store::protect::{Keyring, RootKey};
use auricle_store::vault::{Vault, VaultError};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn ring(byte: &str) -> Keyring {
    Keyring::new(Some(RootKey::from_text(&byte.repeat(32), "the test's key").unwrap()), Vec::new())
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

fn kept(vault: &Vault, user: &str, id: &str, bytes: &[u8]) {
    let mut draft = vault.create(&user.into(), &id.into(), 1 << 30).unwrap();
    for part in bytes.chunks(10_007) {
        draft.write(part).unwrap();
    }
    let kept = draft.keep().unwrap();
    assert_eq!((kept.bytes, kept.sha256), (bytes.len() as u64, Sha256::digest(bytes).into()));
}

fn contents(vault: &Vault, user: &str, id: &str) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    vault.read(&user.into(), &id.into())?.read_to_end(&mut all)?;
    Ok(all)
}

fn files(dir: &TempDir) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path())).collect()
}

#[test]
fn a_file_comes_back_as_it_was_whatever_its_length() {
    for ring in [Keyring::default(), ring("a1")] {
        let dir = TempDir::new().unwrap();
        let vault = Vault::open(dir.path(), ring, u64::MAX).unwrap();
        for length in [0, 1, 65_535, 65_536, 65_537, 300_000] {
            let id = format!("f{length}");
            let bytes = bytes(length);
            kept(&vault, "ann", &id, &bytes);
            assert_eq!(contents(&vault, "ann", &id).unwrap(), bytes, "{length}");
            let mut file = vault.read(&"ann".into(), &id.as_str().into()).unwrap();
            assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), length as u64);
            if length > 70_000 {
                file.seek(SeekFrom::Start(65_530)).unwrap();
                let mut some = [0; 20];
                file.read_exact(&mut some[..6]).unwrap();
                file.read_exact(&mut some[6..]).unwrap();
                assert_eq!(some, bytes[65_530..65_550]);
            }
        }
    }
}

#[test]
fn sealed_files_show_nothing_and_open_for_nobody_else() {
    let dir = TempDir::new().unwrap();
    let vault = Vault::open(dir.path(), ring("a1"), u64::MAX).unwrap();
    let secret = b"what was said in confidence ".repeat(5_000);
    kept(&vault, "ann", "f1", &secret);
    let path = files(&dir).remove(0);
    let stored = std::fs::read(&path).unwrap();
    assert!(!stored.windows(10).any(|part| part == &secret[..10]));
    // Cut at a piece's end, changed, or in another's place: an error, never shorter or other audio.
    for broken in
        [&stored[..32 + 65_536 + 28], &[&stored[..100], &[!stored[100]], &stored[101..]].concat()[..]]
    {
        std::fs::write(&path, broken).unwrap();
        assert!(contents(&vault, "ann", "f1").is_err());
    }
    std::fs::write(&path, &stored).unwrap();
    std::fs::copy(&path, path.with_file_name("f2")).unwrap();
    assert!(contents(&vault, "ann", "f2").is_err());
    assert_eq!(contents(&vault, "ann", "f1").unwrap(), secret);
    let other = Vault::open(dir.path(), ring("b2"), u64::MAX).unwrap();
    assert!(contents(&other, "ann", "f1").is_err(), "another key");
    assert!(contents(&vault, "bob", "f1").is_err());
}

#[test]
fn what_does_not_fit_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let vault = Vault::open(dir.path(), Keyring::default(), 200_000).unwrap();
    kept(&vault, "ann", "f1", &bytes(100_000));
    let mut draft = vault.create(&"ann".into(), &"f2".into(), 1 << 30).unwrap();
    let refused = (0..100).find_map(|_| draft.write(&bytes(10_000)).err()).unwrap();
    assert!(matches!(&refused, VaultError::Full(text) if text.contains("200000")), "{refused}");
    drop(draft);
    assert_eq!((files(&dir).len(), vault.bytes()), (1, 100_032));
    let mut draft = vault.create(&"ann".into(), &"f3".into(), 5).unwrap();
    assert!(matches!(draft.write(b"123456"), Err(VaultError::TooLong(5))));
    drop(draft);
    vault.remove(&"ann".into(), &"f1".into()).unwrap();
    vault.remove(&"ann".into(), &"f1".into()).unwrap();
    assert_eq!((files(&dir).len(), vault.bytes()), (0, 0));
}

#[test]
fn a_start_removes_what_is_not_whole_and_a_user_goes_with_all_files() {
    let dir = TempDir::new().unwrap();
    let vault = Vault::open(dir.path(), Keyring::default(), u64::MAX).unwrap();
    kept(&vault, "ann", "f1", b"a");
    kept(&vault, "bob", "f2", b"b");
    let mut draft = vault.create(&"ann".into(), &"f3".into(), 10).unwrap();
    draft.write(b"half").unwrap();
    std::mem::forget(draft);
    assert_eq!(files(&dir).len(), 3);
    let vault = Vault::open(dir.path(), Keyring::default(), u64::MAX).unwrap();
    assert_eq!((files(&dir).len(), vault.bytes()), (2, 66));
    let found = vault.older_than(Duration::ZERO).unwrap();
    assert_eq!(found.len(), 2);
    assert!(vault.older_than(Duration::from_secs(3_600)).unwrap().is_empty());
    vault.forget(&"ann".into()).unwrap();
    vault.forget(&"ann".into()).unwrap();
    assert!(contents(&vault, "ann", "f1").is_err());
    assert_eq!(contents(&vault, "bob", "f2").unwrap(), b"b");
    vault.discard(found.iter().find(|stored| stored.id.as_str() == "f2").unwrap()).unwrap();
    assert_eq!(vault.bytes(), 0);
}
