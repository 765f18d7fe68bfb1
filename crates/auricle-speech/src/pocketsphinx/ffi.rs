//! The few functions of libpocketsphinx that are used, loaded at run time. The only unsafe code of the crate.
//!
//! Interface: pocketsphinx 0.8.0+real5prealpha as Debian 12 packages it (`libpocketsphinx.so.3`, `libsphinxbase.so.3`). Later
//! versions configure decoders in another way and are refused with a message.

#![expect(unsafe_code, reason = "the foreign function interface of the recogniser")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use libloading::Library;

use crate::engine::EngineError;

type Opaque = *mut c_void;

/// The library with its functions. Shared by all decoders and never unloaded while one lives.
pub(super) struct Sphinx {
    args: unsafe extern "C" fn() -> Opaque,
    init: unsafe extern "C" fn(Opaque) -> Opaque,
    free: unsafe extern "C" fn(Opaque) -> c_int,
    start_stream: unsafe extern "C" fn(Opaque) -> c_int,
    start_utterance: unsafe extern "C" fn(Opaque) -> c_int,
    process_raw: unsafe extern "C" fn(Opaque, *const i16, usize, c_int, c_int) -> c_int,
    end_utterance: unsafe extern "C" fn(Opaque) -> c_int,
    segments: unsafe extern "C" fn(Opaque) -> Opaque,
    next_segment: unsafe extern "C" fn(Opaque) -> Opaque,
    segment_word: unsafe extern "C" fn(Opaque) -> *const c_char,
    segment_frames: unsafe extern "C" fn(Opaque, *mut c_int, *mut c_int),
    parse_config: unsafe extern "C" fn(Opaque, Opaque, i32, *mut *mut c_char, i32) -> Opaque,
    free_config: unsafe extern "C" fn(Opaque) -> c_int,
    model: PathBuf,
    _libraries: (Library, Library),
}

const LIBRARIES: [&str; 2] = ["libpocketsphinx.so.3", "libpocketsphinx.so"];
const BASE_LIBRARIES: [&str; 2] = ["libsphinxbase.so.3", "libsphinxbase.so"];
const MODELS: [&str; 2] =
    ["/usr/share/pocketsphinx/model/en-us", "/usr/local/share/pocketsphinx/model/en-us"];

fn missing(what: &str) -> EngineError {
    EngineError::Unavailable(format!(
        "{what}; install it: apt-get install libpocketsphinx3 pocketsphinx-en-us"
    ))
}

impl Sphinx {
    /// Loads the library and finds the model.
    pub(super) fn load(library: Option<&Path>, model: Option<&Path>) -> Result<Arc<Self>, EngineError> {
        let model = match model {
            Some(model) => model.to_owned(),
            None => MODELS
                .map(PathBuf::from)
                .into_iter()
                .find(|model| model.is_dir())
                .unwrap_or_else(|| MODELS[0].into()),
        };
        for part in ["en-us", "en-us.lm.bin", "cmudict-en-us.dict"] {
            if !model.join(part).exists() {
                return Err(missing(&format!("the model of PocketSphinx is not at {}", model.display())));
            }
        }
        let named: Vec<PathBuf> = match library {
            Some(path) => vec![path.to_owned()],
            None => LIBRARIES.map(PathBuf::from).to_vec(),
        };
        let main = open(&named).ok_or_else(|| missing("PocketSphinx is not installed"))?;
        let base =
            open(&BASE_LIBRARIES.map(PathBuf::from)).ok_or_else(|| missing("SphinxBase is not installed"))?;
        // SAFETY: each symbol is looked up under the name and with the signature that the headers of the version named
        // above declare; both libraries are kept open in the value that holds the functions.
        unsafe {
            if main.get::<unsafe extern "C" fn()>(b"ps_config_init\0").is_ok() {
                return Err(EngineError::Unavailable(
                    "this PocketSphinx is version 5, which is not supported; install Debian's libpocketsphinx3 or name it with speech.pocketsphinx_library".into(),
                ));
            }
            let silence: Result<libloading::Symbol<'_, unsafe extern "C" fn(Opaque)>, _> =
                base.get(b"err_set_logfp\0");
            if let Ok(silence) = silence {
                silence(std::ptr::null_mut());
            }
            let sphinx = Self {
                args: symbol(&main, b"ps_args\0")?,
                init: symbol(&main, b"ps_init\0")?,
                free: symbol(&main, b"ps_free\0")?,
                start_stream: symbol(&main, b"ps_start_stream\0")?,
                start_utterance: symbol(&main, b"ps_start_utt\0")?,
                process_raw: symbol(&main, b"ps_process_raw\0")?,
                end_utterance: symbol(&main, b"ps_end_utt\0")?,
                segments: symbol(&main, b"ps_seg_iter\0")?,
                next_segment: symbol(&main, b"ps_seg_next\0")?,
                segment_word: symbol(&main, b"ps_seg_word\0")?,
                segment_frames: symbol(&main, b"ps_seg_frames\0")?,
                parse_config: symbol(&base, b"cmd_ln_parse_r\0")?,
                free_config: symbol(&base, b"cmd_ln_free_r\0")?,
                model,
                _libraries: (main, base),
            };
            Ok(Arc::new(sphinx))
        }
    }

    /// Where the model is.
    pub(super) fn model(&self) -> &Path {
        &self.model
    }
}

fn open(names: &[PathBuf]) -> Option<Library> {
    // SAFETY: loading runs the library's initialisers; these libraries have none beyond the C runtime's.
    names.iter().find_map(|name| unsafe { Library::new(name) }.ok())
}

/// SAFETY: the caller states the symbol's true type.
unsafe fn symbol<T: Copy>(library: &Library, name: &[u8]) -> Result<T, EngineError> {
    // SAFETY: passed on to the caller.
    unsafe { library.get::<T>(name) }.map(|symbol| *symbol).map_err(|error| {
        EngineError::Unavailable(format!(
            "this PocketSphinx lacks a function: {error}; install Debian's libpocketsphinx3"
        ))
    })
}

/// One recogniser: about 93 MB, a quarter of a second to make. Used by one thread at a time.
pub(super) struct Decoder {
    sphinx: Arc<Sphinx>,
    decoder: NonNull<c_void>,
    in_utterance: bool,
}

// SAFETY: a decoder has no thread-local state; it may move between threads as long as one uses it at a time, which `&mut self`
// on every method ensures.
unsafe impl Send for Decoder {}

/// A word as heard: text, and frames of 10 ms from the utterance's beginning.
pub(super) struct HeardWord {
    pub(super) text: String,
    pub(super) first_frame: u32,
    pub(super) last_frame: u32,
}

impl Decoder {
    /// Makes a recogniser; blocks for about a quarter of a second.
    pub(super) fn new(sphinx: &Arc<Sphinx>, options: &[(&str, &str)]) -> Result<Self, EngineError> {
        let path = |part: &str| sphinx.model.join(part).display().to_string();
        let mut words = vec!["auricle".to_owned()];
        let paths =
            [("-hmm", path("en-us")), ("-lm", path("en-us.lm.bin")), ("-dict", path("cmudict-en-us.dict"))];
        words.extend(paths.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        words.extend(options.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]));
        let words: Result<Vec<CString>, _> = words.into_iter().map(CString::new).collect();
        let words = words.map_err(|_| EngineError::Unavailable("the model's path has a zero byte".into()))?;
        let mut pointers: Vec<*mut c_char> = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
        // SAFETY: the argument list outlives the call, which copies it; the configuration is handed to `ps_init`, which takes
        // its own reference, and ours is freed at once.
        let decoder = unsafe {
            let config = (sphinx.parse_config)(
                std::ptr::null_mut(),
                (sphinx.args)(),
                i32::try_from(pointers.len()).unwrap_or(i32::MAX),
                pointers.as_mut_ptr(),
                1,
            );
            if config.is_null() {
                return Err(EngineError::Broken("PocketSphinx refuses its configuration".into()));
            }
            let decoder = (sphinx.init)(config);
            (sphinx.free_config)(config);
            decoder
        };
        let decoder = NonNull::new(decoder).ok_or_else(|| {
            EngineError::Broken(format!("PocketSphinx cannot load the model at {}", sphinx.model.display()))
        })?;
        Ok(Self { sphinx: Arc::clone(sphinx), decoder, in_utterance: false })
    }

    pub(super) fn start(&mut self) -> Result<(), EngineError> {
        self.end();
        // A stream of its own: frames count from zero, and nothing of another session's noise estimate is left.
        // SAFETY: the decoder is valid until dropped, and no utterance is under way.
        let started = unsafe {
            (self.sphinx.start_stream)(self.decoder.as_ptr());
            (self.sphinx.start_utterance)(self.decoder.as_ptr())
        };
        self.in_utterance = started == 0;
        if started == 0 {
            Ok(())
        } else {
            Err(EngineError::Broken("PocketSphinx cannot begin an utterance".into()))
        }
    }

    pub(super) fn hear(&mut self, pcm: &[i16]) -> Result<(), EngineError> {
        // SAFETY: the slice is valid for the call; the library copies what it keeps.
        let heard =
            unsafe { (self.sphinx.process_raw)(self.decoder.as_ptr(), pcm.as_ptr(), pcm.len(), 0, 0) };
        if heard >= 0 { Ok(()) } else { Err(EngineError::Broken("PocketSphinx cannot take audio".into())) }
    }

    /// Ends the utterance; afterwards [`Decoder::words`] has its words.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.in_utterance) {
            // SAFETY: as above; an utterance is under way.
            unsafe { (self.sphinx.end_utterance)(self.decoder.as_ptr()) };
        }
    }

    /// The words of the utterance that has ended; of one that is under way, what seems best so far.
    pub(super) fn words(&mut self) -> Vec<HeardWord> {
        let mut words = Vec::new();
        // SAFETY: the iterator is valid until `ps_seg_next` returns null, which also frees it; a word's text belongs to the
        // dictionary and is copied at once.
        unsafe {
            let mut segment = (self.sphinx.segments)(self.decoder.as_ptr());
            while !segment.is_null() {
                let text = (self.sphinx.segment_word)(segment);
                let (mut first, mut last) = (0, 0);
                (self.sphinx.segment_frames)(segment, &mut first, &mut last);
                if !text.is_null() {
                    let text = CStr::from_ptr(text).to_string_lossy().into_owned();
                    let frame = |frame: c_int| u32::try_from(frame).unwrap_or(0);
                    words.push(HeardWord { text, first_frame: frame(first), last_frame: frame(last) });
                }
                segment = (self.sphinx.next_segment)(segment);
            }
        }
        words
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.end();
        // SAFETY: made by `ps_init` and freed once.
        unsafe { (self.sphinx.free)(self.decoder.as_ptr()) };
    }
}
