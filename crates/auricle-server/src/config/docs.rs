//! `docs/config.md`, made from the table of keys.

use std::fmt::Write as _;

use super::keys::{Key, keys};

const HEAD: &str = "\
# Configuration

This page is made from the table of keys in `crates/auricle-server/src/config/keys.rs`; a test compares them.

Layers, later ones winning: defaults, the file (`--config FILE`), the environment, flags. `auricle config show` prints
every key with its value and where it came from; `auricle config check` reports all mistakes at once.

* An unknown key is a mistake, in the file and among variables that begin with `AURICLE_`. Left alone are
  `AURICLE_CONFIG`, `AURICLE_URL` and `AURICLE_TOKEN`, which the command line reads, and the variables that Kubernetes makes
  for a service called `auricle`. An empty variable counts as not set.
* Times: a whole number and `ms`, `s`, `m`, `h` or `d`, e.g. `250ms`, `4h`. Sizes: a whole number and `KiB`, `MiB` or
  `GiB`, or plain bytes.
* The variable of `section.name` is `AURICLE_SECTION_NAME`, its flag `--section-name`. Other names are given with the key.
  Secrets have no flag: other users of a machine can read command lines.
* Beyond loopback the server refuses to start without a credential.

```toml
bind = \"0.0.0.0:8080\"

[auth]
oidc_issuer = \"https://securetoken.google.com/my-project\"
oidc_audience = \"my-project\"
oidc_jwks_url = \"https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com\"

[limits]
sessions_max = 1320
spool_total_bytes_max = \"32GiB\"
```
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let mut section = None;
    for key in keys() {
        let of = key.name.split_once('.').map_or("", |(section, _)| section);
        if section != Some(of) {
            section = Some(of);
            let title = if of.is_empty() { "General".to_owned() } else { format!("`[{of}]`") };
            writeln!(page, "\n## {title}\n").expect("text grows");
        }
        writeln!(page, "{}", entry(key)).expect("text grows");
    }
    page
}

fn entry(key: &Key) -> String {
    let default = if key.default.is_empty() { "not set".to_owned() } else { format!("`{}`", key.default) };
    let systematic_flag = usize::from(!key.flags.is_empty());
    let other: Vec<_> = key
        .aliases
        .iter()
        .chain(&key.envs[1..])
        .chain(&key.flags[systematic_flag..])
        .map(|n| format!("`{n}`"))
        .collect();
    let also = if other.is_empty() { String::new() } else { format!(" Also {}.", other.join(", ")) };
    let secret = if key.secret { " Secret." } else { "" };
    format!("* `{}` (default {default}): {} Takes {}.{also}{secret}", key.name, key.doc, key.form)
}
