//! Authentication against a real store and a key server of the test's own.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

mod auth {
    pub(crate) mod issuer;
}

use std::sync::Arc;
use std::time::Duration;

use auricle_core::UserId;
use auricle_core::session::Now;
use auricle_server::auth::{AuthError, Authenticator, api_key_sha256, new_api_key};
use auricle_server::clock::SystemClock;
use auricle_server::config::{Config, Secret};
use auricle_store::{SqliteOptions, SqliteStore, Store};
use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use tempfile::TempDir;

use self::auth::issuer::{AUDIENCE, ISSUER, Issuer, claims, es256, hs256, rs256, unsigned};

struct Rig {
    auth: Authenticator,
    store: Arc<SqliteStore>,
    config: Config,
    _dir: TempDir,
}

fn rig(configure: impl FnOnce(&mut Config)) -> Rig {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path().join("auricle.db"), SqliteOptions::default()).unwrap();
    let mut config = Config::default();
    configure(&mut config);
    let auth = Authenticator::new(&config, Arc::clone(&store) as Arc<dyn Store>).unwrap();
    Rig { auth, store, config, _dir: dir }
}

fn with_issuer(issuer: &Issuer) -> Rig {
    rig(|config| {
        config.auth.oidc_issuer = Some(ISSUER.to_owned());
        config.auth.oidc_audience = Some(AUDIENCE.to_owned());
        config.auth.oidc_jwks_url = Some(issuer.url());
        config.limits.signing_keys_wait = Duration::from_millis(500);
    })
}

fn public(config: &mut Config) {
    config.bind = "0.0.0.0:8080".parse().unwrap();
}

fn now() -> Now {
    SystemClock.now()
}

fn later(by: Duration) -> Now {
    let now = now();
    Now { mono: now.mono + by, wall: now.wall + by }
}

impl Rig {
    async fn token(&self, token: &str) -> Result<UserId, AuthError> {
        self.auth.authenticate_token(token, now()).await
    }
}

#[tokio::test]
async fn on_loopback_without_credentials_everybody_is_the_local_user() {
    let rig = rig(|_| {});
    let local = Ok(UserId::from("local"));
    assert_eq!(rig.auth.authenticate(None, now()).await, local);
    assert_eq!(rig.auth.authenticate(Some("Bearer anything"), now()).await, local);
    assert_eq!(rig.token("anything").await, local);
}

#[tokio::test]
async fn on_loopback_with_a_credential_only_a_missing_header_means_the_local_user() {
    let rig = rig(|config| config.auth.admin_key = Some(Secret::new("the-admin-key")));
    assert_eq!(rig.auth.authenticate(None, now()).await, Ok("local".into()));
    assert_eq!(rig.token("anything").await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn beyond_loopback_there_is_no_local_user() {
    let rig = rig(|config| {
        public(config);
        config.auth.api_keys = true;
    });
    assert_eq!(rig.auth.authenticate(None, now()).await, Err(AuthError::Missing));
    assert_eq!(rig.auth.authenticate(Some("Bearer x"), now()).await, Err(AuthError::Invalid));
    // Even a configuration that was never checked lets nobody in.
    let unchecked = self::rig(public);
    assert_eq!(unchecked.auth.authenticate(None, now()).await, Err(AuthError::Missing));
    assert_eq!(unchecked.token("x").await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn a_header_is_two_words_and_the_first_is_not_looked_at() {
    let rig = rig(|config| config.auth.admin_key = Some(Secret::new("the-admin-key")));
    for header in ["Bearer the-admin-keyana", "bearer the-admin-keyana", "Anything the-admin-keyana"] {
        assert_eq!(rig.auth.authenticate(Some(header), now()).await, Ok("ana".into()), "{header}");
    }
    for header in
        ["", "Bearer", "Bearer ", "the-admin-keyana", "Bearer  the-admin-keyana", "Bearer the-admin-keyana x"]
    {
        assert_eq!(rig.auth.authenticate(Some(header), now()).await, Err(AuthError::Malformed), "{header:?}");
    }
}

#[tokio::test]
async fn the_admin_key_names_the_user_that_follows() {
    let rig = rig(|config| config.auth.admin_key = Some(Secret::new("the-admin-key")));
    assert_eq!(rig.token("the-admin-keyuser-1@example.org").await, Ok("user-1@example.org".into()));
    let long = format!("the-admin-key{}", "x".repeat(129));
    for token in
        ["the-admin-key", "the-admin-kez1", "the-admin", "", "the-admin-keya b", "the-admin-keya/b", &long]
    {
        assert_eq!(rig.token(token).await, Err(AuthError::Invalid), "{token:?}");
    }
}

#[tokio::test]
async fn an_api_key_is_its_users_until_it_is_removed() {
    let rig = rig(|config| config.auth.api_keys = true);
    let key = new_api_key(&mut rand::rng());
    assert!(key.starts_with("auk_") && key.len() == 68);
    rig.store.add_api_key(&"ana".into(), api_key_sha256(&key), "watch", now().wall).await.unwrap();
    assert_eq!(rig.token(&key).await, Ok("ana".into()));
    assert_eq!(rig.token(&new_api_key(&mut rand::rng())).await, Err(AuthError::Invalid));

    assert_eq!(rig.store.remove_api_key(&"ana".into(), "watch").await.unwrap(), 1);
    let after = later(rig.config.limits.api_key_age_max);
    let refused = rig.auth.authenticate_token(&key, after).await;
    assert_eq!(refused, Err(AuthError::Revoked));
    assert_eq!(refused.unwrap_err().close(), (4004, "Token revoked; re-login required"));
    assert_eq!(
        rig.auth.authenticate_token(&key, after).await,
        Err(AuthError::Revoked),
        "and again from memory"
    );
}

#[tokio::test]
async fn only_the_admin_key_and_the_local_user_act_for_everybody() {
    let of = |pairs: &[(header::HeaderName, &'static str)], rig: &Rig| rig.auth.is_operator(&headers(pairs));
    let keyed = |config: &mut Config| {
        config.auth.admin_key = Some(Secret::new("sixteen-letters-long"));
        config.auth.api_keys = true;
    };
    let (open, home) = (rig(|_| {}), rig(keyed));
    let away = rig(|config| {
        keyed(config);
        public(config);
    });
    let admin = [(header::AUTHORIZATION, "Bearer sixteen-letters-longann")];
    let other = [(header::AUTHORIZATION, "Bearer auk_of-somebody")];
    assert!(of(&[], &open) && of(&other, &open), "every token stands for the local user");
    assert!(of(&[], &home) && of(&admin, &home) && !of(&other, &home));
    assert!(!of(&[], &away) && of(&admin, &away) && !of(&other, &away));
}

#[tokio::test]
async fn api_keys_are_refused_where_they_are_not_in_use() {
    let rig = rig(|config| config.auth.admin_key = Some(Secret::new("the-admin-key")));
    let key = new_api_key(&mut rand::rng());
    rig.store.add_api_key(&"ana".into(), api_key_sha256(&key), "watch", now().wall).await.unwrap();
    assert_eq!(rig.token(&key).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn a_store_that_does_not_answer_refuses_for_now_only() {
    let rig = rig(|config| config.auth.api_keys = true);
    rig.store.close().await;
    for _ in 0..2 {
        let refused = rig.token("auk_0").await.unwrap_err();
        assert_eq!((refused, refused.close().0), (AuthError::Unavailable, 1013));
    }
}

#[tokio::test]
async fn a_good_token_of_either_kind_is_its_subjects() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    let claims = claims(now().wall, 3_600);
    assert_eq!(rig.token(&rs256(&claims)).await, Ok("ana".into()));
    assert_eq!(rig.token(&es256(&claims)).await, Ok("ana".into()));
    assert_eq!(issuer.requests(), 1, "the keys are fetched once");
}

#[tokio::test]
async fn another_claim_can_hold_the_user() {
    let issuer = Issuer::start().await;
    let rig = rig(|config| {
        config.auth.oidc_issuer = Some(ISSUER.to_owned());
        config.auth.oidc_audience = Some(AUDIENCE.to_owned());
        config.auth.oidc_jwks_url = Some(issuer.url());
        config.auth.oidc_user_claim = "user_id".to_owned();
    });
    let mut claims = claims(now().wall, 3_600);
    assert_eq!(rig.token(&rs256(&claims)).await, Err(AuthError::Invalid));
    claims["user_id"] = json!("bea");
    assert_eq!(rig.token(&rs256(&claims)).await, Ok("bea".into()));
}

#[tokio::test]
async fn an_expired_token_asks_for_a_refresh_and_is_refused_again_without_io() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    let token = rs256(&claims(now().wall, -3_600));
    for _ in 0..100 {
        let refused = rig.token(&token).await.unwrap_err();
        assert_eq!((refused, refused.close()), (AuthError::Expired, (4001, "Token refresh required")));
    }
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_refused_token_is_not_looked_up_again_until_the_memory_of_it_ends() {
    // The store is closed after the first refusal: only an answer from memory is still `Invalid`.
    let rig = rig(|config| config.auth.api_keys = true);
    let key = new_api_key(&mut rand::rng());
    assert_eq!(rig.token(&key).await, Err(AuthError::Invalid));
    rig.store.close().await;
    assert_eq!(rig.token(&key).await, Err(AuthError::Invalid));
    let after = later(rig.config.limits.refused_token_age_max);
    assert_eq!(rig.auth.authenticate_token(&key, after).await, Err(AuthError::Unavailable));
}

#[tokio::test]
async fn a_clock_that_is_a_little_off_is_forgiven() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    assert_eq!(rig.token(&rs256(&claims(now().wall, -10))).await, Ok("ana".into()));
    let mut early = claims(now().wall, 3_600);
    let at = now().wall.as_secs_f64() as i64;
    early["nbf"] = json!(at + 10);
    assert_eq!(rig.token(&rs256(&early)).await, Ok("ana".into()));
    early["nbf"] = json!(at + 600);
    assert_eq!(rig.token(&rs256(&early)).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn tokens_for_others_or_without_their_claims_are_refused() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    let good = claims(now().wall, 3_600);
    for (claim, value) in [
        ("aud", json!("another-project")),
        ("iss", json!("https://example.org")),
        ("exp", json!("tomorrow")),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!("a\nb")),
        ("aud", json!(null)),
        ("iss", json!(null)),
        ("exp", json!(null)),
        ("sub", json!(null)),
    ] {
        let mut claims = good.clone();
        match value.is_null() {
            true => drop(claims.as_object_mut().unwrap().remove(claim)),
            false => claims[claim] = value.clone(),
        }
        assert_eq!(rig.token(&rs256(&claims)).await, Err(AuthError::Invalid), "{claim} = {value}");
    }
}

#[tokio::test]
async fn no_algorithm_can_be_confused_with_another() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    let claims = claims(now().wall, 3_600);
    let tampered = {
        let mut parts: Vec<String> = rs256(&claims).split('.').map(str::to_owned).collect();
        let other = rs256(&json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": 4_102_444_800_i64 }));
        parts[1] = other.split('.').nth(1).unwrap().to_owned();
        parts.join(".")
    };
    for token in [
        hs256(&claims, auth::issuer::RSA_KID),
        hs256(&claims, auth::issuer::EC_KID),
        unsigned(&claims, "none"),
        unsigned(&claims, "None"),
        unsigned(&claims, "RS256"),
        auth::issuer::es256_as(&claims, auth::issuer::RSA_KID),
        auth::issuer::rs256_as(&claims, auth::issuer::EC_KID),
        tampered,
        "a.b.c".to_owned(),
        "..".to_owned(),
        "x".repeat(100_000),
    ] {
        let brief = &token[..token.len().min(40)];
        assert_eq!(rig.token(&token).await, Err(AuthError::Invalid), "{brief}");
    }
    assert_eq!(rig.token(&rs256(&claims)).await, Ok("ana".into()), "the same claims, well signed");
}

#[tokio::test]
async fn invented_key_names_cost_the_key_server_one_request() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    let claims = claims(now().wall, 3_600);
    for n in 0..50 {
        let token = auth::issuer::rs256_as(&claims, &format!("invented-{n}"));
        assert_eq!(rig.token(&token).await, Err(AuthError::Invalid));
    }
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_found_after_the_shortest_interval() {
    let issuer = Issuer::start().await;
    issuer.publish_only_ec();
    let rig = with_issuer(&issuer);
    let claims = claims(now().wall, 7_200);
    assert_eq!(rig.token(&rs256(&claims)).await, Err(AuthError::Invalid));
    issuer.publish_all();
    let after =
        later(rig.config.limits.signing_keys_refetch_min.max(rig.config.limits.refused_token_age_max));
    assert_eq!(rig.auth.authenticate_token(&rs256(&claims), after).await, Ok("ana".into()));
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn a_key_server_that_fails_refuses_for_now_and_is_asked_again() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    let token = rs256(&claims(now().wall, 7_200));
    issuer.fail();
    for _ in 0..20 {
        let refused = rig.token(&token).await.unwrap_err();
        assert_eq!(
            (refused, refused.close()),
            (AuthError::KeysUnavailable, (4001, "Token refresh required"))
        );
    }
    assert_eq!(issuer.requests(), 1, "not asked again at once");
    issuer.publish_all();
    let after = later(rig.config.limits.signing_keys_refetch_min);
    assert_eq!(rig.auth.authenticate_token(&token, after).await, Ok("ana".into()));
}

#[tokio::test]
async fn a_key_server_that_hangs_or_floods_is_cut_off() {
    let issuer = Issuer::start().await;
    let token = rs256(&claims(now().wall, 7_200));
    issuer.hang();
    let hung = with_issuer(&issuer);
    assert_eq!(hung.token(&token).await, Err(AuthError::KeysUnavailable));
    issuer.flood();
    let flooded = with_issuer(&issuer);
    assert_eq!(flooded.token(&token).await, Err(AuthError::KeysUnavailable));
}

#[tokio::test]
async fn known_keys_are_used_on_while_the_key_server_is_away() {
    let issuer = Issuer::start().await;
    let rig = with_issuer(&issuer);
    let token = rs256(&claims(now().wall, 30 * 86_400));
    assert_eq!(rig.token(&token).await, Ok("ana".into()));
    issuer.fail();
    let age_max = rig.config.limits.signing_keys_age_max;
    assert_eq!(rig.auth.authenticate_token(&token, later(age_max / 2)).await, Ok("ana".into()));
    assert_eq!(issuer.requests(), 2, "it tried");
    let refused = rig.auth.authenticate_token(&token, later(age_max)).await;
    assert_eq!(refused, Err(AuthError::KeysUnavailable), "but not for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tokens_at_once_fetch_the_keys_once() {
    let issuer = Issuer::start().await;
    let rig = Arc::new(with_issuer(&issuer));
    let token = Arc::new(rs256(&claims(now().wall, 3_600)));
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (rig, token) = (Arc::clone(&rig), Arc::clone(&token));
            tokio::spawn(async move { rig.token(&token).await })
        })
        .collect();
    for answer in asking {
        assert_eq!(answer.await.unwrap(), Ok("ana".into()));
    }
    assert_eq!(issuer.requests(), 1);
}

fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

#[tokio::test]
async fn pages_of_other_sites_cannot_act_as_the_local_user() {
    let rig = rig(|_| {});
    let user = async |pairs: &[(header::HeaderName, &'static str)]| {
        rig.auth.authenticate_request(&headers(pairs), now()).await
    };
    let home = (header::HOST, "127.0.0.1:8080");
    assert_eq!(user(&[]).await, Ok("local".into()));
    assert_eq!(user(std::slice::from_ref(&home)).await, Ok("local".into()));
    assert_eq!(
        user(&[(header::HOST, "localhost:8080"), (header::ORIGIN, "http://localhost:8080")]).await,
        Ok("local".into())
    );
    assert_eq!(user(&[home.clone(), (header::ORIGIN, "https://example.org")]).await, Err(AuthError::Foreign));
    assert_eq!(user(&[home.clone(), (header::ORIGIN, "null")]).await, Err(AuthError::Foreign));
    assert_eq!(user(&[(header::HOST, "rebound.example.org:8080")]).await, Err(AuthError::Foreign));
    let token = (header::AUTHORIZATION, "Bearer anything");
    assert_eq!(user(&[home, (header::ORIGIN, "https://example.org"), token]).await, Err(AuthError::Foreign));
}

#[tokio::test]
async fn a_page_with_a_real_credential_may_come_from_anywhere() {
    let rig = rig(|config| config.auth.admin_key = Some(Secret::new("the-admin-key")));
    let from_afar =
        [(header::ORIGIN, "https://example.org"), (header::AUTHORIZATION, "Bearer the-admin-keyana")];
    assert_eq!(rig.auth.authenticate_request(&headers(&from_afar), now()).await, Ok("ana".into()));
    let as_local =
        [(header::ORIGIN, "https://example.org"), (header::AUTHORIZATION, "Bearer the-admin-keylocal")];
    assert_eq!(rig.auth.authenticate_request(&headers(&as_local), now()).await, Ok("local".into()));
}

#[test]
fn each_failure_has_the_close_code_of_section_1_3() {
    for (error, code, reason) in [
        (AuthError::Missing, 1008, "Authorization header not found"),
        (AuthError::Malformed, 1008, "Invalid authorization token"),
        (AuthError::Invalid, 1008, "Invalid authorization token"),
        (AuthError::Expired, 4001, "Token refresh required"),
        (AuthError::KeysUnavailable, 4001, "Token refresh required"),
        (AuthError::Revoked, 4004, "Token revoked; re-login required"),
    ] {
        assert_eq!(error.close(), (code, reason));
    }
}
