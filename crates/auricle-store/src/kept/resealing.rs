//! Kept audio is brought to the present key, a file at a time: sealed, sealed anew, or opened for good if there is no key.
//!
//! A file is written anew beside the old one, synced, given its age, and moved into its place: at every moment one of both is there,
//! whole, and readers open either. What is under which key is read off the files, so that a pass may stop anywhere and be begun again.
//! Invariants: what does not open stays as it is, and is counted; whoever deletes waits for no more than one chunk of a run.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{KeptAudio, KeptConversation, folders};
use crate::protect::{KeyId, Keyring};
use crate::spool::{self, Under, chunks};
use crate::store::KeyUse;
use crate::vault;

/// Ending of a file that is not whole yet.
const DRAFT: &str = "sealing";
/// As much of a file as tells its key.
const HEAD_BYTES: u64 = 4_096;

/// What a step has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Files that are under the present key now.
    pub files: u64,
    /// Their bytes, before.
    pub bytes: u64,
    /// Files that are left as they are, in part or in whole: they do not open, or their key is not there.
    pub left: u64,
    /// There is more in this conversation.
    pub more: bool,
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Under which key a run's file is.
fn under(path: &Path) -> io::Result<Under> {
    let is_header = path.file_name().is_some_and(|name| name == "header");
    match is_header {
        true => Ok(spool::header_under(&fs::read(path)?)),
        false => Ok(spool::chunk_under(&head(path)?)),
    }
}

/// A run's files: its header first, without which nobody reads the others.
fn files(run: &Path) -> io::Result<Vec<PathBuf>> {
    let header = run.join("header");
    let mut found = if header.exists() { vec![header] } else { Vec::new() };
    match chunks(run) {
        Ok(chunks) => found.extend(chunks.into_iter().map(|(path, _)| path)),
        // Deleted meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// Puts `bytes` in the place of a file that keeps its age.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(DRAFT);
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.set_modified(fs::metadata(path)?.modified()?)?;
    file.sync_all()?;
    fs::rename(draft, path)
}

/// Whether a file may be brought to the present key: it is under another one that is there. `None`: its key is not there.
fn is_due(under: Under, ring: &Keyring) -> Option<bool> {
    match under {
        Under::Nothing => Some(false),
        Under::Plain => Some(ring.current().is_some()),
        Under::Key(key) if Some(key) == ring.current() => Some(false),
        Under::Key(key) => ring.known().contains(&key).then_some(true),
    }
}

impl KeptAudio {
    /// Brings files of a conversation to the present key, until `bytes_max` of them were read. Files in `left_before`, which an earlier
    /// step could not open, are passed over.
    ///
    /// # Errors
    /// The disk refuses. Every file is whole.
    pub fn reseal(
        &self,
        kept: &KeptConversation,
        bytes_max: u64,
        left_before: &mut Vec<PathBuf>,
    ) -> io::Result<Resealed> {
        let mut done = Resealed::default();
        for run in folders(&kept.folder)? {
            for path in files(&run)? {
                if left_before.contains(&path) {
                    continue;
                }
                let _turn = self.turn();
                let is_due = match under(&path) {
                    Ok(under) => is_due(under, &self.0.ring),
                    // Deleted meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                if is_due == Some(false) {
                    continue;
                }
                if done.bytes >= bytes_max {
                    return Ok(Resealed { more: true, ..done });
                }
                let before = fs::read(&path)?;
                done.bytes += before.len() as u64;
                let anew = match is_due {
                    Some(_) => spool::reseal(&run, &path, &before, &self.0.ring)?,
                    None => None,
                };
                let Some((bytes, is_whole)) = anew else {
                    done.left += 1;
                    left_before.push(path);
                    continue;
                };
                replace(&path, &bytes)?;
                if path.extension().is_some_and(|ending| ending == "chunk") {
                    self.resized(before.len() as u64, bytes.len() as u64);
                }
                match is_whole {
                    true => done.files += 1,
                    false => {
                        done.left += 1;
                        left_before.push(path);
                    }
                }
            }
        }
        Ok(done)
    }

    /// How many files are under each key. Reads the folder alone, beside whatever process works in it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn key_uses(folder: &Path) -> io::Result<Vec<KeyUse>> {
        let mut found: Vec<(&str, Under)> = Vec::new();
        let mut note = |what: &'static str, under: io::Result<Under>| match under {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            under => under.map(|under| found.push((what, under))),
        };
        for user in folders(&folder.join("runs"))? {
            for conversation in folders(&user)? {
                for run in folders(&conversation)? {
                    for path in files(&run)? {
                        note("audio.runs", under(&path))?;
                    }
                }
            }
        }
        for user in folders(&folder.join("uploads"))? {
            for file in fs::read_dir(&user)? {
                let path = file?.path();
                if path.extension().is_none() {
                    note("audio.uploads", head(&path).map(|head| vault::under(&head)))?;
                }
            }
        }
        let mut uses: Vec<KeyUse> = Vec::new();
        for (what, under) in found {
            let key: Option<KeyId> = match under {
                Under::Nothing => continue,
                Under::Plain => None,
                Under::Key(key) => Some(key),
            };
            match uses.iter_mut().find(|each| each.what == what && each.key == key) {
                Some(each) => each.values += 1,
                None => uses.push(KeyUse { what: what.to_owned(), key, values: 1 }),
            }
        }
        Ok(uses)
    }
}
