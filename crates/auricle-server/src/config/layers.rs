//! Where settings come from: the file, the environment, flags. Every setting keeps its origin.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Mistake;
use super::keys::{Key, keys};

/// What [`super::Config::load`] reads.
pub struct Sources<'a> {
    /// The configuration file, if there is one.
    pub file: Option<FileSource>,
    /// The environment.
    pub env: &'a dyn Env,
    /// Flags as (key, text): the key in the form `section.name`, an alias of it, or the flag itself.
    pub flags: Vec<(String, String)>,
    /// What is to run with it, which decides what must be there.
    pub shape: super::Shape,
}

/// A configuration file that was read.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// Its path, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// The environment variables of a process.
pub trait Env {
    /// Name and value of each.
    fn vars(&self) -> Vec<(String, String)>;
}

/// The variables of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn vars(&self) -> Vec<(String, String)> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
    }
}

impl Env for Vec<(String, String)> {
    fn vars(&self) -> Vec<(String, String)> {
        self.clone()
    }
}

/// Variables that the command line reads itself.
pub(super) const CLI_ENV: [&str; 3] = ["AURICLE_CONFIG", "AURICLE_URL", "AURICLE_TOKEN"];

/// One value of one layer.
#[derive(Debug)]
pub(super) struct Setting {
    /// Of the key in the table.
    pub(super) index: usize,
    /// As the key was written.
    pub(super) spelling: String,
    pub(super) text: String,
    pub(super) origin: String,
}

/// The platform's folder for data of programs.
pub(super) fn data_dir(env: &[(String, String)]) -> PathBuf {
    let var =
        |name| env.iter().find(|(key, value)| key == name && value.starts_with('/')).map(|(_, value)| value);
    let base = var("XDG_DATA_HOME").map(PathBuf::from);
    let base = base.or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    base.map_or_else(|| PathBuf::from("auricle-data"), |base| base.join("auricle"))
}

/// All settings, in rising precedence.
pub(super) fn settings(
    sources: &Sources<'_>,
    env: &[(String, String)],
    mistakes: &mut Vec<Mistake>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(file) = &sources.file {
        let layer = from_file(file, mistakes);
        settings.extend(once_each(layer, mistakes));
    }
    let layer = from_env(env, mistakes);
    settings.extend(once_each(layer, mistakes));
    let layer = from_flags(&sources.flags, mistakes);
    settings.extend(once_each(layer, mistakes));
    settings
}

/// Two names of one key in one layer must agree, or nobody can tell which was meant.
fn once_each(layer: Vec<Setting>, mistakes: &mut Vec<Mistake>) -> Vec<Setting> {
    let mut kept: Vec<Setting> = Vec::new();
    for setting in layer {
        match kept.iter().find(|other| other.index == setting.index) {
            Some(other) if other.text != setting.text => mistakes.push(Mistake {
                value: Some(shown(&keys()[setting.index], &setting.text)),
                expected: format!("the same as {} ({}), which is the same key", other.spelling, other.origin),
                key: setting.spelling,
                origin: setting.origin,
            }),
            Some(_) => {}
            None => kept.push(setting),
        }
    }
    kept
}

fn shown(key: &Key, text: &str) -> String {
    key.shown(text)
}

fn from_file(file: &FileSource, mistakes: &mut Vec<Mistake>) -> Vec<Setting> {
    let name =
        file.path.file_name().map_or_else(|| file.path.display().to_string(), |n| n.to_string_lossy().into());
    let at = |offset: usize| {
        let line = file.text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
        format!("{name} line {line}")
    };
    let table = match DeTable::parse(&file.text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let origin = error.span().map_or_else(|| name.clone(), |span| at(span.start));
            let expected = format!("not TOML: {}", error.message().replace('\n', " "));
            mistakes.push(Mistake { key: name.clone(), value: None, expected, origin });
            return Vec::new();
        }
    };
    let mut settings = Vec::new();
    flatten("", &table, &at, &mut settings, mistakes);
    settings
}

fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    at: &dyn Fn(usize) -> String,
    settings: &mut Vec<Setting>,
    mistakes: &mut Vec<Mistake>,
) {
    for (name, value) in table {
        let spelling = format!("{prefix}{}", name.get_ref());
        let origin = at(name.span().start);
        let index = keys().iter().position(|key| key.name == spelling || key.aliases.contains(&spelling));
        match (index, value.get_ref()) {
            (None, DeValue::Table(section)) if is_section(&spelling) => {
                flatten(&format!("{spelling}."), section, at, settings, mistakes);
            }
            (None, _) => mistakes.push(unknown(spelling, origin, |key| {
                std::iter::once(&key.name).chain(&key.aliases).cloned().collect()
            })),
            (Some(index), _) => match text(value) {
                Some(text) => settings.push(Setting { index, spelling, text, origin }),
                None => mistakes.push(Mistake {
                    key: spelling,
                    value: Some(format!("a TOML {}", value.get_ref().type_str())),
                    expected: keys()[index].form.clone(),
                    origin,
                }),
            },
        }
    }
}

fn is_section(name: &str) -> bool {
    let prefix = format!("{name}.");
    keys()
        .iter()
        .any(|key| key.name.starts_with(&prefix) || key.aliases.iter().any(|a| a.starts_with(&prefix)))
}

fn text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Boolean(on) => Some(on.to_string()),
        // Several values of one key: what a list is elsewhere, with commas.
        DeValue::Array(list) => {
            let parts: Option<Vec<_>> = list
                .iter()
                .map(|part| match part.get_ref() {
                    DeValue::String(text) if !text.contains(',') => Some(text.to_string()),
                    _ => None,
                })
                .collect();
            parts.map(|parts| parts.join(","))
        }
        _ => None,
    }
}

/// An empty variable counts as not set: deployments write `AURICLE_ADMIN_KEY=` for "none".
fn from_env(env: &[(String, String)], mistakes: &mut Vec<Mistake>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, value) in env.iter().filter(|(name, value)| name.starts_with("AURICLE_") && !value.is_empty())
    {
        let index = keys().iter().position(|key| key.envs.contains(name));
        let origin = "environment".to_owned();
        match index {
            Some(index) => settings.push(Setting {
                index,
                spelling: name.clone(),
                text: value.clone(),
                origin: name.clone(),
            }),
            None if CLI_ENV.contains(&name.as_str()) || is_service_link(name, value) => {}
            None => mistakes.push(unknown(name.clone(), origin, |key| key.envs.clone())),
        }
    }
    settings
}

/// Kubernetes puts such variables into every pod beside a service called `auricle` or `auricle-…`: they are not ours.
fn is_service_link(name: &str, value: &str) -> bool {
    let port_of_service =
        name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || port_of_service
        || (name.ends_with("_PORT") && value.contains("://"))
}

fn from_flags(flags: &[(String, String)], mistakes: &mut Vec<Mistake>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, text) in flags {
        let matches = |key: &Key| key.name == *name || key.aliases.contains(name) || key.flags.contains(name);
        let position = keys().iter().position(matches).filter(|index| !keys()[*index].secret);
        match position {
            Some(index) => {
                let flag = if name.starts_with("--") { name.clone() } else { flag_for(&keys()[index], name) };
                settings.push(Setting { index, spelling: flag.clone(), text: text.clone(), origin: flag });
            }
            None => mistakes.push(unknown(name.clone(), "command line".to_owned(), |key| key.flags.clone())),
        }
    }
    settings
}

fn flag_for(key: &Key, name: &str) -> String {
    let systematic = format!("--{}", name.replace(['.', '_'], "-"));
    if key.flags.contains(&systematic) { systematic } else { key.flags[0].clone() }
}

/// An unknown key, with the nearest known one if it is near.
fn unknown(spelling: String, origin: String, names: impl Fn(&Key) -> Vec<String>) -> Mistake {
    let nearest = keys().iter().flat_map(names).min_by_key(|name| distance(&spelling, name));
    let near = nearest.filter(|name| distance(&spelling, name) <= (spelling.len() / 5).max(2));
    let expected = match near {
        Some(name) => format!("no such key; did you mean {name}?"),
        None => "no such key; `auricle config show` lists all".to_owned(),
    };
    Mistake { key: spelling, value: None, expected, origin }
}

/// Edits (insert, delete, replace) between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
