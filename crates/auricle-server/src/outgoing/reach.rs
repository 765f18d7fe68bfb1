//! Where outgoing requests may go: not into networks that only this machine can reach (SSRF).
//!
//! Addresses are checked when a connection is made, on what the name has become by then: a name that changes its mind
//! between check and use (DNS rebinding) is caught.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Finds a name's addresses.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Who wrote an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// Whoever runs the server: may mean this machine and private addresses, if they are named as such.
    Operator,
    /// Anybody with an account.
    User,
}

/// Where webhooks may go.
#[derive(Clone)]
pub(crate) struct Reach {
    /// Everywhere (`webhooks.allow_private`); else to public addresses, and where its author may mean it so.
    anywhere: bool,
    author: Author,
    lookup: Lookup,
}

impl Reach {
    /// The operator's, by the system's resolver.
    pub(crate) fn new(anywhere: bool) -> Self {
        let lookup: Lookup = Arc::new(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        Self { anywhere, author: Author::Operator, lookup }
    }

    /// The same for another author's addresses.
    pub(crate) fn of(&self, author: Author) -> Self {
        Self { author, ..self.clone() }
    }

    /// Looks a name up now, so that whoever writes it hears at once where it may not lead. A name that nobody knows yet
    /// passes: it is looked up again at each connection.
    pub(crate) async fn admit_name(&self, url: &Url) -> Result<(), String> {
        self.admit(url)?;
        let Some(name) = url.domain() else { return Ok(()) };
        match (self.lookup)(name.to_owned()).await {
            Ok(found) if !found.is_empty() => self.choose(name, found).map(drop),
            _ => Ok(()),
        }
    }

    /// Checks an address that is written out as a number; a name is checked when it is looked up. The error says what to
    /// do.
    pub(crate) fn admit(&self, url: &Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let Ok(address) = host.parse::<IpAddr>() else { return Ok(()) };
        match refusal(address) {
            None => Ok(()),
            // It was written so by who may.
            Some(PRIVATE | LOOPBACK) if self.author == Author::Operator => Ok(()),
            Some(class) if !self.anywhere => Err(refused(host, class)),
            Some(_) => Ok(()),
        }
    }

    fn choose(&self, name: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
        if self.anywhere {
            return Ok(found);
        }
        // Whatever a resolver says, this name means this machine.
        let here = self.author == Author::Operator && name.eq_ignore_ascii_case("localhost");
        let mut class = None;
        let admitted: Vec<_> = found
            .into_iter()
            .filter(|address| {
                let refused = if here {
                    (!address.is_loopback()).then_some("not this machine")
                } else {
                    refusal(*address)
                };
                class = class.or(refused);
                refused.is_none()
            })
            .collect();
        match class {
            Some(class) if admitted.is_empty() => Err(refused(name, class)),
            _ => Ok(admitted),
        }
    }
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.clone();
        Box::pin(async move {
            let found = (reach.lookup)(name.as_str().to_owned()).await?;
            let admitted = reach.choose(name.as_str(), found)?;
            let admitted = admitted.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(admitted) as Addrs)
        })
    }
}

fn refused(host: &str, class: &str) -> String {
    format!(
        "{host} is an address that webhooks may not go to ({class}); if it is meant, set webhooks.allow_private = true"
    )
}

const LOOPBACK: &str = "loopback";
const PRIVATE: &str = "private";
const LINK_LOCAL: &str = "link-local";
const MULTICAST: &str = "multicast";
const UNSPECIFIED: &str = "unspecified";
const SHARED: &str = "shared by a provider's customers";
const DOCUMENTATION: &str = "documentation";
const RESERVED: &str = "reserved";
const EMBEDDED: &str = "IPv4 within IPv6";

/// Why an address is not a public one, by its class; `None` if it is.
fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

/// Source: IANA's registry of special-purpose addresses.
fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some(UNSPECIFIED),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(PRIVATE),
        [127, ..] => Some(LOOPBACK),
        [169, 254, ..] => Some(LINK_LOCAL),
        [100, 64..=127, ..] => Some(SHARED),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(DOCUMENTATION),
        [224..=239, ..] => Some(MULTICAST),
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => Some(RESERVED),
        _ => None,
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(UNSPECIFIED),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(LOOPBACK),
        // Mapped and compatible; NAT64; 6to4 and Teredo.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] => {
            Some(EMBEDDED)
        }
        [0xfc00..=0xfdff, ..] => Some(PRIVATE),
        [0xfe80..=0xfebf, ..] => Some(LINK_LOCAL),
        [0xff00..=0xffff, ..] => Some(MULTICAST),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(DOCUMENTATION),
        [0x2001, 0..=0x1ff, ..] => Some(RESERVED),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(RESERVED),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    impl Reach {
        /// Names have these addresses, one list a look-up, the last again and again.
        pub(crate) fn scripted(anywhere: bool, answers: &[&[&str]]) -> Self {
            let parse =
                |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
            let answers: Mutex<VecDeque<_>> = Mutex::new(answers.iter().map(parse).collect());
            let lookup: Lookup = Arc::new(move |_| {
                let mut answers = answers.lock().unwrap();
                let next = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
                Box::pin(std::future::ready(Ok(next)))
            });
            Self { anywhere, author: Author::Operator, lookup }
        }
    }

    async fn resolve(reach: &Reach, name: &str) -> Result<Vec<String>, String> {
        let found = reach.resolve(name.parse().unwrap()).await;
        found.map(|found| found.map(|a| a.ip().to_string()).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_class_of_address_that_is_not_public_is_known() {
        for (class, addresses) in [
            (LOOPBACK, &["127.0.0.1", "127.255.0.9", "::1"][..]),
            (
                PRIVATE,
                &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1"],
            ),
            (LINK_LOCAL, &["169.254.169.254", "fe80::1", "febf::1"]),
            (MULTICAST, &["224.0.0.1", "239.255.255.250", "ff02::1"]),
            (UNSPECIFIED, &["0.0.0.0", "0.1.2.3", "::"]),
            (SHARED, &["100.64.0.1", "100.127.255.255"]),
            (DOCUMENTATION, &["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"]),
            (
                EMBEDDED,
                &[
                    "::ffff:127.0.0.1",
                    "::ffff:8.8.8.8",
                    "::7f00:1",
                    "64:ff9b::7f00:1",
                    "64:ff9b:1::a00:1",
                    "2002:7f00:1::",
                    "2001::1",
                ],
            ),
            (
                RESERVED,
                &[
                    "192.0.0.1",
                    "192.88.99.1",
                    "198.18.0.1",
                    "240.0.0.1",
                    "255.255.255.255",
                    "100::1",
                    "fec0::1",
                    "2001:2::1",
                ],
            ),
        ] {
            for address in addresses {
                assert_eq!(refusal(address.parse().unwrap()), Some(class), "{address}");
            }
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
        ] {
            assert_eq!(refusal(public.parse().unwrap()), None, "{public}");
        }
    }

    #[tokio::test]
    async fn a_name_is_as_good_as_what_it_leads_to() {
        let reach = Reach::scripted(false, &[&["10.0.0.1"]]);
        let error = resolve(&reach, "hooks.example").await.unwrap_err();
        assert!(error.contains("private") && error.contains("webhooks.allow_private"), "{error}");
        assert!(resolve(&Reach::scripted(true, &[&["10.0.0.1"]]), "hooks.example").await.is_ok());
        // Of several, the public ones.
        let mixed = Reach::scripted(false, &[&["127.0.0.1", "1.1.1.1", "fd00::1"]]);
        assert_eq!(resolve(&mixed, "hooks.example").await.unwrap(), ["1.1.1.1"]);
    }

    #[tokio::test]
    async fn a_name_that_changes_its_mind_is_caught() {
        let reach = Reach::scripted(false, &[&["1.1.1.1"], &["127.0.0.1"]]);
        assert!(resolve(&reach, "rebind.example").await.is_ok());
        assert!(resolve(&reach, "rebind.example").await.is_err());
    }

    #[tokio::test]
    async fn localhost_is_this_machine_and_nothing_else() {
        assert!(resolve(&Reach::scripted(false, &[&["127.0.0.1", "::1"]]), "localhost").await.is_ok());
        assert!(resolve(&Reach::scripted(false, &[&["10.0.0.1"]]), "localhost").await.is_err());
        assert!(resolve(&Reach::scripted(false, &[&["127.0.0.1"]]), "localhost.example").await.is_err());
    }

    #[test]
    fn an_operator_may_write_a_private_address_out() {
        let admits = |anywhere, url: &str| Reach::new(anywhere).admit(&url.parse().unwrap()).is_ok();
        for url in [
            "http://127.0.0.1:9/x",
            "http://10.0.0.1",
            "http://[::1]/",
            "http://[fd00::1]/",
            "http://8.8.8.8",
        ] {
            assert!(admits(false, url), "{url}");
        }
        for url in [
            "http://169.254.169.254/latest",
            "http://0.0.0.0/",
            "http://100.64.0.1",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
        ] {
            assert!(!admits(false, url) && admits(true, url), "{url}");
        }
    }

    #[tokio::test]
    async fn a_user_may_not_mean_this_machine_nor_its_network() {
        let users = |anywhere| Reach::scripted(anywhere, &[&["127.0.0.1"]]).of(Author::User);
        for url in [
            "http://127.0.0.1:9/x",
            "http://10.0.0.1",
            "http://[::1]/",
            "http://[fd00::1]/",
            "http://169.254.169.254/latest",
            "http://localhost:8080/",
            "http://hooks.example/",
        ] {
            let url = url.parse().unwrap();
            let error = users(false).admit_name(&url).await.unwrap_err();
            assert!(error.contains("webhooks.allow_private"), "{error}");
            assert!(users(true).admit_name(&url).await.is_ok(), "{url}");
        }
        assert!(resolve(&users(false), "localhost").await.is_err(), "nor when it connects");
        let public = Reach::scripted(false, &[&["1.1.1.1"]]).of(Author::User);
        assert!(public.admit_name(&"https://hooks.example/".parse().unwrap()).await.is_ok());
    }
}
