//! How each kind of value is written: text to value and back.
//!
//! Invariant: what [`Value::show`] gives, [`Value::take`] takes (secrets aside).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

/// A value that can be configured.
pub(crate) trait Value {
    /// What is expected, as in "expected an address".
    fn form(&self) -> String;
    /// Takes the text, or leaves itself as it was.
    fn take(&mut self, text: &str) -> Option<()>;
    /// In the form in which it can be given.
    fn show(&self) -> String;
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// What is shown instead.
    pub const HIDDEN: &str = "********";

    /// Wraps a secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for comparing and for sending, not for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

/// Scheme, host and port of an address; what else it holds may be secret. Text that is no address is not shown at all.
pub(crate) fn without_secrets(address: &str) -> String {
    let url = reqwest::Url::parse(address).ok();
    let shown = url.as_ref().and_then(|url| {
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let rest =
            if url.path() == "/" && url.query().is_none() && url.fragment().is_none() { "" } else { "/…" };
        Some(format!("{}://{}{port}{rest}", url.scheme(), url.host_str()?))
    });
    shown.unwrap_or_else(|| Secret::HIDDEN.to_owned())
}

/// A time zone that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The machine's own.
    System,
    /// By IANA name, e.g. `Europe/Madrid`.
    Named(String, TimeZone),
}

impl Zone {
    /// The rules; UTC if the machine's own cannot be told.
    pub fn get(&self) -> TimeZone {
        match self {
            Self::System => TimeZone::try_system().unwrap_or(TimeZone::UTC),
            Self::Named(_, zone) => zone.clone(),
        }
    }
}

impl Value for Zone {
    fn form(&self) -> String {
        "`system` or the IANA name of a time zone, e.g. Europe/Madrid".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        *self = match text {
            "system" => Self::System,
            name => Self::Named(name.to_owned(), TimeZone::get(name).ok()?),
        };
        Some(())
    }
    fn show(&self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::Named(name, _) => name.clone(),
        }
    }
}

/// The hour from which yesterday is summarised; none: never by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayHour(pub Option<i8>);

impl Value for DayHour {
    fn form(&self) -> String {
        "`off` or an hour from 0 to 23".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        *self = match text {
            "off" => Self(None),
            hour => Self(Some(i8::try_from(whole(hour)?).ok().filter(|hour| *hour < 24)?)),
        };
        Some(())
    }
    fn show(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), |hour| hour.to_string())
    }
}

/// Makes an enum a value that is given by one of a few words.
macro_rules! words {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// Its word in configuration.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl $crate::config::value::Value for $name {
            fn form(&self) -> String {
                let words: &[&str] = &[$($text),+];
                format!("one of {}", words.join(", "))
            }
            fn take(&mut self, text: &str) -> Option<()> {
                *self = match text { $($text => Self::$variant,)+ _ => return None };
                Some(())
            }
            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}
pub(crate) use words;

/// Makes a list of such words a value: with commas between them, none twice, `$alone` only alone.
macro_rules! listed {
    ($name:ident of $of:ident, $alone:path) => {
        impl $crate::config::value::Value for $name {
            fn form(&self) -> String {
                format!(
                    "one or more of {}, with commas between them; `{}` only alone",
                    $alone.form().trim_start_matches("one of "),
                    $alone.show()
                )
            }
            fn take(&mut self, text: &str) -> Option<()> {
                let mut list = Vec::new();
                for part in text.split(',') {
                    let mut one = $alone;
                    one.take(part.trim())?;
                    if list.contains(&one) {
                        return None;
                    }
                    list.push(one);
                }
                let mixed = list.len() > 1 && list.contains(&$alone);
                (!mixed).then(|| self.0 = list)
            }
            fn show(&self) -> String {
                self.0.iter().map(|one| one.show()).collect::<Vec<_>>().join(",")
            }
        }
    };
}
pub(crate) use listed;

impl Value for bool {
    fn form(&self) -> String {
        "true or false".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        *self = text.parse().ok()?;
        Some(())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for usize {
    fn form(&self) -> String {
        "a whole number from 0 to 1024".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        *self = text.parse().ok().filter(|count| *count <= 1_024)?;
        Some(())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Tokens that a language model holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens(pub usize);

impl Value for Tokens {
    fn form(&self) -> String {
        "a whole number from 8192 to 10000000".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let count = whole(text).filter(|count| (8_192..=10_000_000).contains(count))?;
        self.0 = usize::try_from(count).ok()?;
        Some(())
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// What a million tokens cost, in whatever currency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price(pub f64);

impl Value for Price {
    fn form(&self) -> String {
        "a number from 0 to 1000000, e.g. 0.25".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        self.0 = text.parse().ok().filter(|price| plain && (0.0..=1_000_000.0).contains(price))?;
        Some(())
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for u32 {
    fn form(&self) -> String {
        "a whole number from 0 to 65536".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        *self = text.parse().ok().filter(|count| *count <= 65_536)?;
        Some(())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for SocketAddr {
    fn form(&self) -> String {
        "an IP address and a port, e.g. 127.0.0.1:8080 or [::1]:8080; port 0 lets the system choose"
            .to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        *self = numeric.parse().ok()?;
        Some(())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn form(&self) -> String {
        "text of 1 to 256 printable characters without spaces".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let sane =
            (1..=256).contains(&text.len()) && text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        sane.then(|| *self = text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn form(&self) -> String {
        "a path, written out (`~` is not expanded)".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let sane = !text.is_empty() && !text.starts_with('~') && !text.contains('\0');
        sane.then(|| *self = PathBuf::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Several files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths(pub Vec<PathBuf>);

impl Value for Paths {
    fn form(&self) -> String {
        "paths with commas between them, written out (`~` is not expanded)".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let mut paths = Vec::new();
        for part in text.split(',') {
            let mut path = PathBuf::new();
            path.take(part.trim())?;
            paths.push(path);
        }
        self.0 = paths;
        Some(())
    }
    fn show(&self) -> String {
        self.0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
    }
}

/// Several words or phrases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub Vec<String>);

/// Entries of a list, and the characters of one.
const LIST_MAX: usize = 100;
const LIST_ENTRY_CHARS_MAX: usize = 60;

impl Value for List {
    fn form(&self) -> String {
        "up to 100 words or phrases of up to 60 characters, with commas between them".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let entries: Vec<_> = text.split(',').map(|entry| entry.trim().to_owned()).collect();
        let sane = |entry: &String| {
            (1..=LIST_ENTRY_CHARS_MAX).contains(&entry.chars().count()) && !entry.contains(char::is_control)
        };
        (entries.len() <= LIST_MAX && entries.iter().all(sane)).then(|| self.0 = entries)
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
}

impl Value for Secret {
    fn form(&self) -> String {
        "8 to 256 printable ASCII characters without spaces".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let sane = (8..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        sane.then(|| *self = Self::new(text))
    }
    fn show(&self) -> String {
        Self::HIDDEN.to_owned()
    }
}

/// The empty value of an optional one, to parse into.
pub(crate) trait Blank: Value {
    fn blank() -> Self;
}

impl Blank for String {
    fn blank() -> Self {
        Self::new()
    }
}

impl Blank for PathBuf {
    fn blank() -> Self {
        Self::new()
    }
}

impl Blank for Secret {
    fn blank() -> Self {
        Self::new("")
    }
}

/// Shown as empty while it is not set; there is no way to write "not set" in a layer.
impl<T: Blank> Value for Option<T> {
    fn form(&self) -> String {
        T::blank().form()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let mut value = T::blank();
        value.take(text)?;
        *self = Some(value);
        Some(())
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, Value::show)
    }
}

/// Milliseconds of each unit, longest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1_000)];

/// `250ms`, `5s`, `2m`, `4h`, `1d`: a whole number and its unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (_, (digits, millis)) =
        DURATION_UNITS.iter().find_map(|(unit, ms)| Some((unit, (text.strip_suffix(unit)?, ms))))?;
    Some(Duration::from_millis(whole(digits)?.checked_mul(*millis)?))
}

/// In the longest unit that is exact.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let exact = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = exact.iter().find(|(_, of)| ms > 0 && ms.is_multiple_of(*of));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, of)| format!("{}{unit}", ms / of))
}

const BYTE_UNITS: [(&str, u64); 5] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];

/// `64MiB`, `512KiB`, `2GiB`, or plain bytes.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, of) = BYTE_UNITS.iter().find_map(|(unit, of)| Some((text.strip_suffix(unit)?, of)))?;
    whole(digits)?.checked_mul(*of)
}

/// In the longest unit that is exact.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let unit = BYTE_UNITS.iter().find(|(_, of)| bytes > 0 && bytes.is_multiple_of(*of));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, of)| format!("{}{unit}", bytes / of))
}

/// A whole number written with digits only (no sign), underscores allowed between them.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    (digits.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('_'))
        .then(|| digits.parse().ok())?
}
