//! The published models in whisper.cpp's format.

use std::path::{Path, PathBuf};

/// Where they are published. Another place must have the same files under the same names.
pub const PUBLISHED_AT: &str = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main";

/// A published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// As `auricle models pull` takes it. Those that end in `.en` hear English only.
    pub name: &'static str,
    /// Size of its file.
    pub bytes: u64,
    /// Of its file, hexadecimal, as published with it.
    pub sha256: &'static str,
}

impl Model {
    /// The name of its file.
    pub fn file(&self) -> String {
        format!("ggml-{}.bin", self.name)
    }

    /// Where it is kept under a data folder.
    pub fn path(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("models").join(self.file())
    }

    /// Whether it hears other languages than English.
    pub fn is_multilingual(&self) -> bool {
        !self.name.contains(".en")
    }
}

/// The model that is used if none is named: every language, and fast enough for two cores.
pub const DEFAULT: &str = "base";

macro_rules! models {
    ($($name:literal $bytes:literal $sha256:literal)+) => {
        &[$(Model { name: $name, bytes: $bytes, sha256: $sha256 }),+]
    };
}

/// Smallest first. Source: the LFS pointers beside the files at [`PUBLISHED_AT`].
pub const MODELS: &[Model] = models! {
    "tiny" 77_691_713 "be07e048e1e599ad46341c8d2a135645097a538221678b7acdd1b1919c6e1b21"
    "tiny.en" 77_704_715 "921e4cf8686fdd993dcd081a5da5b6c365bfde1162e72b08d75ac75289920b1f"
    "base" 147_951_465 "60ed5bc3dd14eea856493d334349b405782ddcaf0028d4b5df4088345fba2efe"
    "base.en" 147_964_211 "a03779c86df3323075f5e796cb2ce5029f00ec8869eee3fdfb897afe36c6d002"
    "small" 487_601_967 "1be3a9b2063867b937e64e2ec7483364a79917e157fa98c5d94b5c1fffea987b"
    "small.en" 487_614_201 "c6138d6d58ecc8322097e0f987c32f1be8bb0a18532a3f88f734d1bbf9c41e5d"
    "large-v3-turbo-q5_0" 574_041_195 "394221709cd5ad1f40c46e6031ca61bce88931e6e088c188294c6d5a55ffa7e2"
    "large-v3-turbo-q8_0" 874_188_075 "317eb69c11673c9de1e1f0d459b253999804ec71ac4c23c17ecf5fbe24e259a1"
    "large-v3-q5_0" 1_081_140_203 "d75795ecff3f83b5faa89d1900604ad8c780abd5739fae406de19f23ecd98ad1"
    "medium" 1_533_763_059 "6c14d5adee5f86394037b4e4e8b59f1673b6cee10e3cf0b11bbdbee79c156208"
    "medium.en" 1_533_774_781 "cc37e93478338ec7700281a7ac30a10128929eb8f427dda2e865faa8f6da4356"
    "large-v3-turbo" 1_624_555_275 "1fc70f774d38eb169993ac391eea357ef47c88757ef72ee5943879b7e8e2bc69"
    "large-v3" 3_095_033_483 "64d182b440b98d5203c4f9bd541544d84c605196c4f7b845dfa11fb23594d1e2"
};

/// The model of this name.
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// The file that `speech.whisper_model` means: a path, or the name of a model that was pulled into `data_dir`.
pub fn resolve(given: Option<&Path>, data_dir: &Path) -> PathBuf {
    let given = given.unwrap_or(Path::new(DEFAULT));
    match given.to_str().and_then(find) {
        Some(model) => model.path(data_dir),
        None => given.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_or_given_as_a_path() {
        let data = Path::new("data");
        assert_eq!(resolve(None, data), Path::new("data/models/ggml-base.bin"));
        assert_eq!(resolve(Some(Path::new("small.en")), data), Path::new("data/models/ggml-small.en.bin"));
        assert_eq!(resolve(Some(Path::new("./mine.bin")), data), Path::new("./mine.bin"));
    }

    #[test]
    fn the_catalogue_is_well_formed() {
        for model in MODELS {
            assert_eq!(model.sha256.len(), 64, "{}", model.name);
            assert!(
                model.sha256.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
            );
            assert_eq!(find(model.name), Some(model));
        }
        assert!(MODELS.is_sorted_by_key(|model| model.bytes) && find(DEFAULT).is_some());
    }
}
