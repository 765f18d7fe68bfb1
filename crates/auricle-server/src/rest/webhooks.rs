//! Webhooks and apps of the user who asks, and what apps said.

use auricle_core::ids::random_uuid;
use auricle_core::{EffectId, TargetId, TargetKind, TargetState, Trigger, UserId};
use auricle_store::{Effect, NewTarget, Recipient, Sensitive, Target, TargetSettings};
use auricle_wire::rest::{
    Delivery, Message, NewWebhook, Problem, Replay, Replayed, Tested, Webhook, WebhookChange,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use reqwest::Url;
use serde::Deserialize;
use utoipa::IntoParams;

use super::RestState;
use super::answer::{Body, Caller, Id, MaybeBody, Params, Refusal, page_limit, page_offset};
use crate::convert;
use crate::outgoing::reach::Author;
use crate::outgoing::{self, Post, Sent, with_query};
use crate::webhook::JSON;

const WHAT: &str = "Webhook";
const PAGE: usize = 100;
/// Characters of a name.
const NAME_CHARS_MAX: usize = 100;
/// Seconds of audio in one delivery. Source of the default: pusher-and-processing 3.1.
const AUDIO_SECS: std::ops::RangeInclusive<u32> = 1..=60;
const AUDIO_SECS_DEFAULT: u32 = 5;
/// Revived in one transaction, so that live sessions' writes get in between.
const REPLAYED_AT_ONCE: usize = 500;
/// Of a test's answer.
const ANSWER_SHOWN_BYTES: usize = 1_024;
/// Silence of one second at 16 kHz, for a test of an audio webhook.
const SAMPLE_RATE_HZ: usize = 16_000;

/// Which.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WebhooksQuery {
    /// `developer` or `app`; both if absent.
    kind: Option<String>,
}

/// The user's webhooks and apps, in the order they were added. Their secrets are shown once, when they are made.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", params(WebhooksQuery), responses(
    (status = 200, body = Vec<Webhook>),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn list(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<WebhooksQuery>,
) -> Result<Json<Vec<Webhook>>, Refusal> {
    let kind = query.kind.as_deref().map(kind_of).transpose()?;
    let targets = state.store.targets(&user).await.map_err(|error| Refusal::store(WHAT, error))?;
    let targets = targets.iter().filter(|target| kind.is_none_or(|kind| target.kind == kind));
    Ok(Json(targets.map(convert::webhook).collect()))
}

/// Adds a webhook or an app. The answer holds its secret, which no later answer does.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", request_body = NewWebhook, responses(
    (status = 201, body = Webhook),
    (status = 409, description = "The user has as many as there may be", body = Problem),
))]
pub(super) async fn add(
    Caller(user): Caller,
    State(state): State<RestState>,
    Body(request): Body<NewWebhook>,
) -> Result<(StatusCode, Json<Webhook>), Refusal> {
    let kind = kind_of(request.kind.as_deref().unwrap_or(TargetKind::Developer.as_str()))?;
    let url = state.outgoing.read_url(&request.url).await.map_err(Refusal::invalid)?;
    let triggers = match &request.triggers {
        Some(names) => triggers_of(names, kind)?,
        None => vec![Trigger::Conversation],
    };
    let host = outgoing::host(&url);
    let settings = TargetSettings {
        name: name_of(request.name.as_deref().unwrap_or(&host))?,
        triggers,
        url: Sensitive::new(request.url),
        host,
        audio_secs: secs_of(request.audio_seconds.unwrap_or(AUDIO_SECS_DEFAULT))?,
    };
    let (id, secret) = (TargetId::random(&mut rand::rng()), fresh_secret());
    let now = state.clock.wall();
    let new = NewTarget { id: id.clone(), user: user.clone(), kind, settings, secret: secret.clone(), now };
    if let Err(error) = state.store.add_target(new).await {
        return Err(match error {
            auricle_store::StoreError::Conflict(_) => Refusal::new(
                StatusCode::CONFLICT,
                format!(
                    "There are {} webhooks and apps, which is the limit; remove one first",
                    state.limits.targets_per_user_max
                ),
            ),
            error => Refusal::store(WHAT, error),
        });
    }
    let mut made = load(&state, &user, &id).await?;
    made.secret = Some(secret.expose().to_owned());
    Ok((StatusCode::CREATED, Json(made)))
}

/// One webhook or app.
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")), responses(
    (status = 200, body = Webhook),
    (status = 404, description = "No such webhook of this user", body = Problem),
))]
pub(super) async fn read(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Webhook>, Refusal> {
    Ok(Json(load(&state, &user, &id.into()).await?))
}

async fn target(state: &RestState, user: &UserId, id: &TargetId) -> Result<Target, Refusal> {
    let target = state.store.target(user, id).await.map_err(|error| Refusal::store(WHAT, error))?;
    target.ok_or_else(|| Refusal::not_found(WHAT))
}

async fn load(state: &RestState, user: &UserId, id: &TargetId) -> Result<Webhook, Refusal> {
    Ok(convert::webhook(&target(state, user, id).await?))
}

/// Changes a webhook or app. `state`: `paused` holds what concerns records back until it is `on` again; `off` fails it.
#[utoipa::path(patch, path = "/v1/webhooks/{id}", tag = "webhooks", request_body = WebhookChange,
    params(("id" = String, Path, description = "The webhook")), responses(
    (status = 200, body = Webhook),
    (status = 404, description = "No such webhook of this user", body = Problem),
))]
pub(super) async fn change(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Body(change): Body<WebhookChange>,
) -> Result<Json<Webhook>, Refusal> {
    let id = TargetId::from(id);
    let Target { kind, mut settings, .. } = target(&state, &user, &id).await?;
    if let Some(url) = change.url {
        settings.host = outgoing::host(&state.outgoing.read_url(&url).await.map_err(Refusal::invalid)?);
        settings.url = Sensitive::new(url);
    }
    if let Some(name) = change.name {
        settings.name = name_of(&name)?;
    }
    if let Some(names) = change.triggers {
        settings.triggers = triggers_of(&names, kind)?;
    }
    if let Some(secs) = change.audio_seconds {
        settings.audio_secs = secs_of(secs)?;
    }
    let wanted = change.state.map(|text| {
        TargetState::parse(&text).ok_or_else(|| Refusal::invalid("States are on, paused and off"))
    });
    let changed =
        state.store.change_target(&user, &id, settings, wanted.transpose()?, state.clock.wall()).await;
    changed.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(load(&state, &user, &id).await?))
}

/// Removes a webhook or app, and what waits for it.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")), responses(
    (status = 204, description = "Removed"),
    (status = 404, description = "No such webhook of this user", body = Problem),
))]
pub(super) async fn remove(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let removed = state.store.remove_target(&user, &id.into()).await;
    removed.map_err(|error| Refusal::store(WHAT, error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives it another secret, by which the next delivery is signed. The answer holds it, and no later one does.
#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")), responses(
    (status = 200, body = Webhook),
    (status = 404, description = "No such webhook of this user", body = Problem),
))]
pub(super) async fn rotate(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Webhook>, Refusal> {
    let (id, secret) = (TargetId::from(id), fresh_secret());
    let set = state.store.set_target_secret(&user, &id, secret.clone()).await;
    set.map_err(|error| Refusal::store(WHAT, error))?;
    let mut webhook = load(&state, &user, &id).await?;
    webhook.secret = Some(secret.expose().to_owned());
    Ok(Json(webhook))
}

/// Posts a sample now, marked as one, and tells how it went. It is no delivery: it changes nothing here.
#[utoipa::path(post, path = "/v1/webhooks/{id}/test", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")), responses(
    (status = 200, body = Tested),
    (status = 404, description = "No such webhook of this user", body = Problem),
))]
pub(super) async fn test(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
) -> Result<Json<Tested>, Refusal> {
    let recipient = state.store.recipient(&user, &id.into()).await;
    let recipient = recipient.map_err(|error| Refusal::store(WHAT, error))?;
    let recipient = recipient.ok_or_else(|| Refusal::not_found(WHAT))?;
    let trigger = recipient.settings.triggers.first().copied().unwrap_or(Trigger::Conversation);
    let url = state.outgoing.read_url(recipient.settings.url.expose()).await.map_err(Refusal::invalid)?;
    let sent = state.outgoing.post(sample(&state, recipient, trigger, &url)).await;
    Ok(Json(tested(trigger, &sent)))
}

fn sample(state: &RestState, recipient: Recipient, trigger: Trigger, url: &Url) -> Post {
    let now = state.clock.wall();
    let (user, rate) = (recipient.user.as_str(), SAMPLE_RATE_HZ.to_string());
    let (query, content_type, body) = match trigger {
        Trigger::Audio => {
            let query = vec![("sample_rate", rate.as_str()), ("uid", user), ("test", "true")];
            (query, "application/octet-stream", vec![0; SAMPLE_RATE_HZ * 2])
        }
        _ => {
            let body = convert::webhook_sample(trigger, &recipient.user, now).to_string().into_bytes();
            (vec![("uid", user), ("test", "true")], JSON, body)
        }
    };
    Post {
        url: with_query(url, &query),
        author: Author::User,
        kind: recipient.kind,
        trigger: convert::trigger(trigger),
        content_type,
        key: Some(format!("test:{}", random_uuid(&mut rand::rng()))),
        secret: Some(recipient.secret),
        answer_bytes_max: state.limits.webhook_answer_bytes_max,
        body,
    }
}

fn tested(trigger: Trigger, sent: &Sent) -> Tested {
    let shown = &sent.answer[..sent.answer.len().min(ANSWER_SHOWN_BYTES)];
    Tested {
        trigger: convert::trigger(trigger).to_owned(),
        taken: sent.posted.error().is_none(),
        status: sent.status,
        latency_ms: u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
        answer: String::from_utf8_lossy(shown).into_owned(),
        error: sent.posted.error().map(str::to_owned),
    }
}

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveriesQuery {
    /// At most; 100 if absent.
    limit: Option<usize>,
}

/// What a webhook or app was told of records and days, and what waits, the newest first. Realtime deliveries leave no row.
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook"), DeliveriesQuery), responses(
    (status = 200, body = Vec<Delivery>),
    (status = 404, description = "No such webhook of this user", body = Problem),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn deliveries(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    Params(query): Params<DeliveriesQuery>,
) -> Result<Json<Vec<Delivery>>, Refusal> {
    let limit = page_limit(query.limit, PAGE, &state.limits)?;
    let effects: Vec<Effect> = state
        .store
        .deliveries(&user, &id.into(), limit)
        .await
        .map_err(|error| Refusal::store(WHAT, error))?;
    Ok(Json(effects.iter().map(convert::delivery).collect()))
}

/// Delivers again, under the same keys: one delivery, whatever became of it, or all that have failed.
#[utoipa::path(post, path = "/v1/webhooks/{id}/replay", tag = "webhooks", request_body = Option<Replay>,
    params(("id" = String, Path, description = "The webhook")), responses(
    (status = 200, body = Replayed),
    (status = 404, description = "No such webhook or delivery of this user", body = Problem),
    (status = 409, description = "It is off, or the delivery is under way", body = Problem),
))]
pub(super) async fn replay(
    Caller(user): Caller,
    State(state): State<RestState>,
    Id(id): Id,
    MaybeBody(request): MaybeBody<Replay>,
) -> Result<Json<Replayed>, Refusal> {
    let (id, effect) = (TargetId::from(id), request.and_then(|request| request.delivery_id));
    let effect = effect.map(EffectId::from);
    let now = state.clock.wall();
    let mut replayed = 0;
    // The outbox looks by itself every second.
    loop {
        let some = state.store.replay(&user, &id, effect.as_ref(), now, REPLAYED_AT_ONCE).await;
        let some = some.map_err(|error| Refusal::store(WHAT, error))?;
        replayed += some;
        if some < REPLAYED_AT_ONCE {
            return Ok(Json(Replayed { replayed }));
        }
    }
}

/// A page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct MessagesQuery {
    /// How many at most; 100 if absent.
    limit: Option<usize>,
    /// How many of the newest are left out.
    offset: Option<usize>,
}

/// What the user's apps said, and the server about failing webhooks, the newest first.
#[utoipa::path(get, path = "/v1/messages", tag = "webhooks", params(MessagesQuery), responses(
    (status = 200, body = Vec<Message>),
    (status = 422, description = "A parameter is wrong", body = Problem),
))]
pub(super) async fn messages(
    Caller(user): Caller,
    State(state): State<RestState>,
    Params(query): Params<MessagesQuery>,
) -> Result<Json<Vec<Message>>, Refusal> {
    let limit = page_limit(query.limit, PAGE, &state.limits)?;
    let offset = page_offset(query.offset)?;
    let messages = state.store.messages(&user, limit, offset).await;
    let messages = messages.map_err(|error| Refusal::store("Message", error))?;
    Ok(Json(messages.iter().map(convert::message).collect()))
}

fn kind_of(text: &str) -> Result<TargetKind, Refusal> {
    TargetKind::parse(text).ok_or_else(|| Refusal::invalid("Kinds are developer and app"))
}

fn triggers_of(names: &[String], kind: TargetKind) -> Result<Vec<Trigger>, Refusal> {
    let mut triggers = Vec::new();
    for name in names {
        let trigger = convert::trigger_of(name).filter(|trigger| trigger.is_for(kind)).ok_or_else(|| {
            Refusal::invalid(
                "Triggers are memory_created, realtime_transcript, audio_bytes and, of developers, day_summary",
            )
        })?;
        if !triggers.contains(&trigger) {
            triggers.push(trigger);
        }
    }
    if triggers.is_empty() {
        return Err(Refusal::invalid("At least one trigger is needed"));
    }
    Ok(triggers)
}

fn name_of(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let sane = (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    match sane {
        true => Ok(text.to_owned()),
        false => Err(Refusal::invalid(format!("A name has 1 to {NAME_CHARS_MAX} printable characters"))),
    }
}

fn secs_of(secs: u32) -> Result<u32, Refusal> {
    match AUDIO_SECS.contains(&secs) {
        true => Ok(secs),
        false => Err(Refusal::invalid(format!(
            "One delivery holds {} to {} seconds of audio",
            AUDIO_SECS.start(),
            AUDIO_SECS.end()
        ))),
    }
}

/// 256 bits.
fn fresh_secret() -> Sensitive {
    let mut bytes = [0; 32];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Sensitive::new(format!("whsec_{text}"))
}
