//! The model's file: whether it is one, before megabytes of it are read. Layout: `whisper_model_load` of whisper.cpp.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::catalog;
use crate::engine::EngineError;

/// `ggml`, little endian.
const MAGIC: u32 = 0x6767_6d6c;
/// Vocabulary of English-only models; others have more.
const ENGLISH_VOCABULARY: i32 = 51_864;

/// What a model's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// False: English only.
    pub(super) multilingual: bool,
    /// Only a layout: whisper.cpp's own tests have such files, and they hear nothing.
    pub(super) without_weights: bool,
}

/// Reads and checks what stands before the weights in `path`: half a megabyte.
///
/// Errors: no such file, another format, a cut or damaged file. The text names the path and what to do.
pub(super) fn header(path: &Path) -> Result<Header, EngineError> {
    let shown = path.display();
    let mut file = File::open(path).map_err(|error| {
        EngineError::Unavailable(format!("no Whisper model at {shown} ({error}): {}", mend(path)))
    })?;
    let mut bytes = [0; 48];
    let mut read = 0;
    while let Ok(more @ 1..) = file.read(&mut bytes[read..]) {
        read += more;
    }
    if read < bytes.len() || u32_at(&bytes, 0) != MAGIC {
        let what = kind(&bytes[..read]);
        return Err(EngineError::Unavailable(format!(
            "{shown} is no Whisper model but {what}: {}",
            mend(path)
        )));
    }
    let numbers: Vec<i32> = (1..12).map(|at| u32_at(&bytes, at) as i32).collect();
    let sensible = [
        (ENGLISH_VOCABULARY..=100_000, numbers[0]),
        (1..=10_000, numbers[1]),
        (1..=8_192, numbers[2]),
        (1..=128, numbers[3]),
        (1..=128, numbers[4]),
        (1..=10_000, numbers[5]),
        (1..=8_192, numbers[6]),
        (1..=128, numbers[7]),
        (1..=128, numbers[8]),
        (1..=256, numbers[9]),
        (0..=100_000, numbers[10]),
    ];
    if !sensible.iter().all(|(range, number)| range.contains(number)) {
        return Err(EngineError::Unavailable(format!("{shown} is damaged: {}", mend(path))));
    }
    let found = file.metadata().map_or(0, |about| about.len());
    if let Some(model) = named(path)
        && found != model.bytes
    {
        return Err(EngineError::Unavailable(format!(
            "{shown} is damaged: it has {found} bytes of {}: {}",
            model.bytes,
            mend(path)
        )));
    }
    // whisper.cpp takes a file that ends before its weights for one without any, and hears nothing with it.
    let Some(weights_at) = skip_filters_and_vocabulary(BufReader::new(file)).filter(|at| *at <= found) else {
        return Err(EngineError::Unavailable(format!("{shown} is cut off at {found} bytes: {}", mend(path))));
    };
    Ok(Header { multilingual: numbers[0] > ENGLISH_VOCABULARY, without_weights: weights_at == found })
}

/// From behind the header to the weights; gives their position.
fn skip_filters_and_vocabulary(mut file: BufReader<File>) -> Option<u64> {
    fn number(file: &mut BufReader<File>, max: u32) -> Option<u32> {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).ok()?;
        Some(u32::from_le_bytes(bytes)).filter(|number| *number <= max)
    }
    let filters = u64::from(number(&mut file, 1_024)?) * u64::from(number(&mut file, 65_536)?) * 4;
    let mut at = 48 + 8 + filters;
    file.seek_relative(i64::try_from(filters).ok()?).ok()?;
    let words = number(&mut file, 100_000)?;
    at += 4;
    for _ in 0..words {
        let length = number(&mut file, 4_096)?;
        file.seek_relative(i64::from(length)).ok()?;
        at += 4 + u64::from(length);
    }
    Some(at)
}

/// What to do about a file that does not serve.
pub(super) fn mend(path: &Path) -> String {
    let name = named(path).map_or("base", |model| model.name);
    format!("get one with `auricle models pull {name}`, or set speech.whisper_model to a ggml-*.bin file")
}

fn named(path: &Path) -> Option<&'static catalog::Model> {
    let file = path.file_name()?.to_str()?;
    catalog::MODELS.iter().find(|model| model.file() == file)
}

fn u32_at(bytes: &[u8; 48], at: usize) -> u32 {
    let at = at * 4;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn kind(begin: &[u8]) -> &'static str {
    match begin {
        [] => "empty",
        _ if begin.starts_with(b"GGUF") => "a GGUF file, as llama.cpp uses them",
        _ if begin.starts_with(b"PK") => "a PyTorch or zip file",
        _ if begin.starts_with(b"version https://git-lfs") => "a Git LFS pointer to one",
        _ if begin.starts_with(b"<") => "a web page",
        _ if begin.starts_with(&MAGIC.to_le_bytes()) => "cut off in its header",
        _ => "another kind of file",
    }
}

/// A model's layout, with one filter, a vocabulary of two words and no weights.
#[cfg(test)]
pub(super) fn layout(vocabulary: i32) -> Vec<u8> {
    let header = [MAGIC as i32, vocabulary, 1_500, 384, 6, 4, 448, 384, 6, 4, 80, 1];
    let mut bytes: Vec<u8> = header.iter().flat_map(|number| number.to_le_bytes()).collect();
    bytes.extend([1_u32, 1, 0, 2].iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(b"\x01\0\0\0a\x02\0\0\0bc");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Header, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        header(&path).map_err(|error| {
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("auricle models pull"), "{text}");
            text
        })
    }

    #[test]
    fn the_header_says_which_languages() {
        for (vocabulary, multilingual) in [(51_864, false), (51_865, true), (51_866, true)] {
            let found = |bytes: &[u8]| read("mine.bin", bytes);
            let bare = layout(vocabulary);
            assert_eq!(found(&bare), Ok(Header { multilingual, without_weights: true }));
            let weighty = [bare.clone(), vec![0; 9]].concat();
            assert_eq!(found(&weighty), Ok(Header { multilingual, without_weights: false }));
            for length in [48, 56, 61, bare.len() - 1] {
                let cut = found(&bare[..length]).unwrap_err();
                assert!(cut.contains(&format!("cut off at {length} bytes")), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_model_is_named_for_what_it_is() {
        for (bytes, what) in [
            (&b"GGUF\x03\0\0\0"[..], "GGUF"),
            (b"PK\x03\x04", "PyTorch"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
            (b"<!doctype html>", "web page"),
            (b"", "empty"),
            (b"lmgg\0\0", "cut off"),
            (b"something else that is longer than a header is, of another kind", "another kind"),
        ] {
            let text = read("x.bin", bytes).unwrap_err();
            assert!(text.contains(what), "{text}");
        }
        assert!(read("x.bin", &layout(-1)).unwrap_err().contains("damaged"));
        let missing = header(Path::new("/nowhere/ggml-small.en.bin")).unwrap_err().to_string();
        assert!(
            missing.contains("/nowhere/ggml-small.en.bin") && missing.contains("pull small.en"),
            "{missing}"
        );
    }

    #[test]
    fn a_known_model_that_was_cut_off_says_how_much_is_there() {
        let text = read("ggml-tiny.en.bin", &layout(51_864)).unwrap_err();
        assert!(text.contains("75 bytes of 77704715") && text.contains("pull tiny.en"), "{text}");
    }
}
