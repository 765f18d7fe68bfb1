//! Rules between keys.

use std::time::Duration;

use super::value::{show_duration, without_secrets};
use super::{Config, LlmFallback, Mistake, Shape, TranslationWhen, is_language};
use crate::auth::is_user_id;
use crate::outgoing::reach::Reach;

/// Least length of an admin key that strangers may try.
const PUBLIC_ADMIN_KEY_BYTES: usize = 16;

/// Adds a mistake for every rule that is broken.
pub(super) fn rules(config: &Config, shape: Shape, mistakes: &mut Vec<Mistake>) {
    let mut broken = |key: &str, value: String, expected: &str| {
        mistakes.push(Mistake {
            key: key.to_owned(),
            value: Some(value),
            expected: expected.to_owned(),
            origin: config.origin(key),
        });
    };
    match shape {
        Shape::Embedded | Shape::Listen => reach(config, &mut broken),
        Shape::Pusher => reach_pusher(config, &mut broken),
    }
    pusher_url(config, &mut broken);
    llm_key_header(config, &mut broken);
    service_url(("llm.url", "llm.key (AURICLE_LLM_KEY)"), config.llm.url.as_deref(), &mut broken);
    let key = ("embeddings.url", "embeddings.key (AURICLE_EMBEDDINGS_KEY)");
    service_url(key, config.embeddings.url.as_deref(), &mut broken);
    super::cloud_speech::rules(&config.speech.cloud, &mut broken);
    webhooks(config, &mut broken);
    oidc(config, &mut broken);
    if !is_user_id(&config.auth.local_user) {
        broken(
            "auth.local_user",
            config.auth.local_user.clone(),
            "a user id: 1 to 128 letters, digits or any of -_.:@|+=",
        );
    }
    if config.protection.key.is_some()
        && let Some(file) = &config.protection.key_file
    {
        let expected =
            "nothing, since protection.key (AURICLE_PROTECTION_KEY) is set: there is one present key";
        broken("protection.key_file", file.display().to_string(), expected);
    }
    let limits = &config.limits;
    let mut less = |key: &str, value: Duration, bound: &str, than: Duration| {
        if value >= than {
            broken(
                key,
                show_duration(value),
                &format!("less than {bound}, which is {}", show_duration(than)),
            );
        }
    };
    less("limits.llm_call_max", limits.llm_call_max, "limits.job_attempt_max", limits.job_attempt_max);
    if config.llm.fallback == LlmFallback::Local {
        // The job would have failed before.
        less(
            "limits.llm_fallback_after",
            limits.llm_fallback_after,
            "limits.job_away_max",
            limits.job_away_max,
        );
    }
    // Pongs answer heartbeats: a healthy link would be taken for dead between two.
    less(
        "limits.link_heartbeat_every",
        limits.link_heartbeat_every,
        "limits.link_silent_max",
        limits.link_silent_max,
    );
    // A target would be off before anybody was warned.
    less(
        "limits.target_warn_after",
        limits.target_warn_after,
        "limits.target_off_after",
        limits.target_off_after,
    );
    if config.translation.when != TranslationWhen::Off && config.llm.url.is_none() {
        let expected = "off, since no language model is configured (llm.url)";
        broken("translation.when", config.translation.when.as_str().to_owned(), expected);
    }
    if let Some(language) = config.translation.language.as_deref().filter(|language| !is_language(language)) {
        broken("translation.language", language.to_owned(), "a language's code, e.g. es or pt-BR");
    }
    if limits.lease_renew_every > limits.lease / 2 {
        let expected = format!("at most half of limits.lease, which is {}", show_duration(limits.lease));
        broken("limits.lease_renew_every", show_duration(limits.lease_renew_every), &expected);
    }
}

fn reach(config: &Config, broken: &mut impl FnMut(&str, String, &str)) {
    if config.is_loopback_only() {
        return;
    }
    if !config.auth.has_credential() {
        let expected = "a loopback address such as 127.0.0.1:8080, since no credential is configured: anybody who \
                        reaches the port would be the local user. Set auth.admin_key (AURICLE_ADMIN_KEY), \
                        auth.api_keys = true, or auth.oidc_issuer";
        broken("bind", config.bind.to_string(), expected);
    }
    if let Some(key) = config.auth.admin_key.as_ref().filter(|k| k.expose().len() < PUBLIC_ADMIN_KEY_BYTES) {
        broken("auth.admin_key", key.to_string(), "16 characters at least, since bind is beyond loopback");
    }
}

/// Whoever reaches a pusher may speak for every user.
fn reach_pusher(config: &Config, broken: &mut impl FnMut(&str, String, &str)) {
    if config.is_loopback_only() {
        return;
    }
    match &config.pusher.secret {
        None => {
            let expected = "a loopback address such as 127.0.0.1:8090, since pusher.secret (AURICLE_PUSHER_SECRET) is \
                            not set: anybody who reaches the port could speak for every user";
            broken("bind", config.bind.to_string(), expected);
        }
        Some(secret) if secret.expose().len() < PUBLIC_ADMIN_KEY_BYTES => {
            broken(
                "pusher.secret",
                secret.to_string(),
                "16 characters at least, since bind is beyond loopback",
            );
        }
        Some(_) => {}
    }
}

fn pusher_url(config: &Config, broken: &mut impl FnMut(&str, String, &str)) {
    let Some(text) = &config.pusher.url else { return };
    let url = reqwest::Url::parse(text).ok();
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        // It would be shown with the address, and is not what a pusher looks at.
        let expected = "a URL such as http://pusher:8080, without user name and password; what guards a pusher is \
                        pusher.secret (AURICLE_PUSHER_SECRET)";
        return broken("pusher.url", "a URL with a user name or password".to_owned(), expected);
    }
    let url = url.filter(|url| url.has_host() && url.query().is_none());
    let known = url.is_some_and(|url| ["http", "https", "ws", "wss"].contains(&url.scheme()));
    if !known {
        broken("pusher.url", text.clone(), "a URL such as http://pusher:8080, without a query");
    }
}

fn llm_key_header(config: &Config, broken: &mut impl FnMut(&str, String, &str)) {
    let header = &config.llm.key_header;
    if header.parse::<reqwest::header::HeaderName>().is_err() {
        broken("llm.key_header", header.clone(), "the name of a header such as authorization or api-key");
    }
}

fn service_url((name, key): (&str, &str), url: Option<&str>, broken: &mut impl FnMut(&str, String, &str)) {
    let Some(text) = url else { return };
    // A password would be shown with the address.
    let known = reqwest::Url::parse(text).is_ok_and(|url| {
        url.has_host()
            && url.scheme().starts_with("http")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if !known {
        let expected =
            format!("a URL such as http://127.0.0.1:11434, without query or password; the key is {key}");
        broken(name, without_secrets(text), &expected);
    }
}

fn webhooks(config: &Config, broken: &mut impl FnMut(&str, String, &str)) {
    let ours = &config.webhooks;
    let urls = [
        ("webhooks.conversation", &ours.conversation),
        ("webhooks.transcript", &ours.transcript),
        ("webhooks.audio", &ours.audio),
    ];
    let reach = Reach::new(ours.allow_private);
    for (key, url) in urls {
        let Some(text) = url else { continue };
        let shown = without_secrets(text);
        let url = reqwest::Url::parse(text).ok();
        let known = url.filter(|url| url.has_host() && url.scheme().starts_with("http"));
        if known.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
            broken(key, shown, "a URL without user and password; a secret may stand in its path or query");
            continue;
        }
        match known.map(|url| reach.admit(&url)) {
            None => broken(key, shown, "a URL that begins with http:// or https://"),
            Some(Err(reason)) => broken(key, shown, &format!("another address: {reason}")),
            Some(Ok(())) => {}
        }
    }
}

fn oidc(config: &Config, broken: &mut impl FnMut(&str, String, &str)) {
    let auth = &config.auth;
    let keys = [
        ("auth.oidc_issuer", &auth.oidc_issuer),
        ("auth.oidc_audience", &auth.oidc_audience),
        ("auth.oidc_jwks_url", &auth.oidc_jwks_url),
    ];
    if keys.iter().any(|(_, value)| value.is_some()) {
        for (key, _) in keys.iter().filter(|(_, value)| value.is_none()) {
            broken(
                key,
                String::new(),
                "a value: issuer, audience and JWKS URL of auth.oidc_… belong together",
            );
        }
    }
    if let Some(url) = &auth.oidc_jwks_url
        && !is_trustworthy(url)
    {
        broken("auth.oidc_jwks_url", url.clone(), "an https:// URL (http:// only on this machine)");
    }
}

/// Keys fetched in the clear could be anybody's.
fn is_trustworthy(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    match url.scheme() {
        "https" => url.has_host(),
        "http" => url.host_str().is_some_and(crate::auth::is_loopback_host),
        _ => false,
    }
}
