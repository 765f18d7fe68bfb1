//! Configuration: layers, mistakes, secrets, and the page that is made from the table of keys.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

use std::path::PathBuf;
use std::time::Duration;

use auricle_server::config::{
    Config, ConfigError, FileSource, LogFormat, Mistake, Shape, Sources, SpeechEngine, keys, markdown,
};

#[derive(Default)]
struct Given {
    file: Option<&'static str>,
    env: Vec<(&'static str, &'static str)>,
    flags: Vec<(&'static str, &'static str)>,
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(given: &Given) -> Result<Config, ConfigError> {
    load_for(Shape::Embedded, given)
}

fn load_for(shape: Shape, given: &Given) -> Result<Config, ConfigError> {
    let env = owned(&given.env);
    Config::load(Sources {
        file: given
            .file
            .map(|text| FileSource { path: PathBuf::from("/etc/auricle.toml"), text: text.to_owned() }),
        env: &env,
        flags: owned(&given.flags),
        shape,
    })
}

fn mistakes(given: &Given) -> Vec<Mistake> {
    load(given).expect_err("there are mistakes").mistakes
}

fn file(text: &'static str) -> Given {
    Given { file: Some(text), ..Given::default() }
}

fn row(config: &Config, key: &str) -> (String, String) {
    let row = config.show().into_iter().find(|row| row.key == key).expect("the key exists");
    (row.value, row.origin)
}

#[test]
fn an_empty_machine_runs_on_loopback_with_the_defaults_that_are_documented() {
    let config = load(&Given { env: vec![("HOME", "/home/ana")], ..Given::default() }).unwrap();
    assert_eq!(config.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.probe_bind.to_string(), "127.0.0.1:8081");
    assert_eq!(config.data_dir, PathBuf::from("/home/ana/.local/share/auricle"));
    assert_eq!(config.limits, auricle_core::Limits::default());
    assert!(config.session_workers() >= 1 && config.processing_threads() >= 1);
    for (row, key) in config.show().iter().zip(keys()) {
        assert_eq!(row.origin, "default", "{}", row.key);
        assert!(row.value == key.default || key.name == "data_dir", "{}: {}", row.key, row.value);
    }
}

#[test]
fn the_platforms_data_folder_is_taken_from_where_it_is_named() {
    let dir = |env| load(&Given { env, ..Given::default() }).unwrap().data_dir;
    assert_eq!(dir(vec![("XDG_DATA_HOME", "/data"), ("HOME", "/home/ana")]), PathBuf::from("/data/auricle"));
    assert_eq!(
        dir(vec![("XDG_DATA_HOME", "relative"), ("HOME", "/h")]),
        PathBuf::from("/h/.local/share/auricle")
    );
    assert_eq!(dir(vec![]), PathBuf::from("auricle-data"));
}

#[test]
fn a_later_layer_wins_and_each_value_keeps_its_origin() {
    let config = load(&Given {
        file: Some("bind = \"127.0.0.1:1\"\n\n[limits]\nsessions_max = 5\nsweep_every = \"7s\"\n"),
        env: vec![("AURICLE_BIND", "127.0.0.1:2"), ("AURICLE_LIMITS_SESSIONS_MAX", "6")],
        flags: vec![("bind", "127.0.0.1:3")],
    })
    .unwrap();
    assert_eq!(row(&config, "bind"), ("127.0.0.1:3".into(), "--bind".into()));
    assert_eq!(row(&config, "limits.sessions_max"), ("6".into(), "AURICLE_LIMITS_SESSIONS_MAX".into()));
    assert_eq!(row(&config, "limits.sweep_every"), ("7s".into(), "auricle.toml line 5".into()));
    assert_eq!(config.limits.sessions_max, 6);
    assert_eq!(config.limits.sweep_every, Duration::from_secs(7));
}

#[test]
fn every_key_can_be_given_in_every_layer_and_reads_back_as_it_is_shown() {
    let samples = |form: &str| match form {
        f if f.starts_with("a time from") => "1900ms",
        f if f.starts_with("a time") => "91s",
        f if f.starts_with("a size") => "3333KiB",
        f if f.starts_with("a whole number from 8192") => "9999",
        f if f.starts_with("a whole number") => "77",
        f if f.starts_with("a number") => "0.25",
        f if f.starts_with("an IP address") => "127.0.0.1:9",
        f if f.starts_with("true") => "true",
        f if f.starts_with("a path") => "/p",
        f if f.starts_with("one of auto, on") => "off",
        f if f.starts_with("one of off") => "always",
        f if f.starts_with("one of auto") => "json_object",
        f if f.starts_with("one of wait") => "local",
        f if f.starts_with("a URL") => "http://127.0.0.1:9",
        f if f.starts_with("`off` or an hour") => "5",
        f if f.starts_with("`off` or a time") => "720h",
        f if f.starts_with("paths") => "/p,/q",
        f if f.starts_with("one or more of pocketsphinx") => "scripted,pocketsphinx",
        f if f.starts_with("one of text") => "json",
        f if f.starts_with("one of error") => "trace",
        f if f.starts_with("one of auricle") => "omi-r3",
        f if f.starts_with("one of standard") => "standard",
        f if f.starts_with("up to 100 words") => "one,two words",
        f if f.contains("time zone") => "Europe/Madrid",
        f if f.starts_with("text") || f.starts_with("8 to") => "some-text",
        other => panic!("no sample for {other:?}"),
    };
    // These are bound by rules to other keys; a test of their own gives them.
    let bound = [
        "auth.oidc_issuer",
        "auth.oidc_audience",
        "auth.oidc_jwks_url",
        "limits.lease_renew_every",
        "limits.link_heartbeat_every",
        "limits.target_off_after",
        "translation.when",
        "translation.language",
    ];
    for key in keys().iter().filter(|key| !bound.contains(&key.name.as_str())) {
        let is_url = (key.name.starts_with("webhooks.") && !key.is_switch())
            || key.name.ends_with(".url")
            || key.name.starts_with("speech.") && key.name.ends_with("_url");
        let text = if is_url { "http://127.0.0.1:9" } else { samples(&key.form) };
        let env = key.envs.iter().map(|env| (vec![(env.clone(), text.to_owned())], vec![]));
        let flags = key.flags.iter().map(|flag| (vec![], vec![(flag.clone(), text.to_owned())]));
        for (env, flags) in env.chain(flags) {
            let layers = format!("{env:?} {flags:?}");
            let config =
                Config::load(Sources { file: None, env: &env, flags, shape: Shape::Embedded }).unwrap();
            let shown = key.show(&config);
            if key.secret {
                assert_eq!(shown, "********");
                continue;
            }
            assert_ne!(shown, key.default, "{layers}");
            let again = Config::load(Sources {
                file: None,
                env: &vec![],
                flags: vec![(key.name.clone(), shown)],
                shape: Shape::Embedded,
            });
            assert_eq!(again.unwrap().hash(), config.hash(), "{layers}");
        }
    }
}

#[test]
fn the_names_that_scripts_use_are_accepted() {
    let config = load(&Given {
        env: vec![("AURICLE_ADMIN_KEY", "admin-key"), ("AURICLE_DATA_DIR", "/srv/auricle")],
        flags: vec![("--bind", "[::1]:0"), ("--probe-bind", "localhost:0"), ("--speech", "scripted")],
        ..Given::default()
    })
    .unwrap();
    assert_eq!(config.auth.admin_key.as_ref().unwrap().expose(), "admin-key");
    assert_eq!(config.data_dir, PathBuf::from("/srv/auricle"));
    assert_eq!((config.bind.to_string(), config.probe_bind.port()), ("[::1]:0".into(), 0));
    assert_eq!(config.speech.engines.0, [SpeechEngine::Scripted]);
    assert_eq!(row(&config, "speech.engines").1, "--speech");
}

#[test]
fn a_chain_of_engines_is_a_list_in_the_file_and_commas_elsewhere_and_one_is_one() {
    let engines = |given: Given| load(&given).unwrap().speech.engines.names();
    let file = "[speech]\nengines = [\"scripted\", \"pocketsphinx\"]\n";
    assert_eq!(engines(Given { file: Some(file), ..Given::default() }), ["scripted", "pocketsphinx"]);
    let file = "[speech]\nengine = \"scripted\"\n";
    assert_eq!(engines(Given { file: Some(file), ..Given::default() }), ["scripted"]);
    let env = vec![("AURICLE_SPEECH", "pocketsphinx, scripted")];
    assert_eq!(engines(Given { env, ..Given::default() }), ["pocketsphinx", "scripted"]);
    let env = vec![("AURICLE_SPEECH_ENGINE", "none")];
    assert_eq!(engines(Given { env, ..Given::default() }), ["none"]);
    for wrong in ["whisker", "scripted,whisker", "scripted,scripted", "scripted,none", "scripted,"] {
        let found = mistakes(&Given { flags: vec![("--speech", wrong)], ..Given::default() });
        assert_eq!(found.len(), 1, "{wrong}");
        assert!(found[0].expected.contains("pocketsphinx"), "{}", found[0].expected);
    }
}

#[test]
fn all_mistakes_of_all_layers_are_reported_together() {
    let found = mistakes(&Given {
        file: Some("bnid = \"x\"\nbind = 5\n[limits]\nsessions_max = 0\nlease = [1]\n[nothing]\na = 1\n"),
        env: vec![("AURICLE_LOG_FORMT", "json"), ("AURICLE_PROBE_BIND", "nowhere")],
        flags: vec![("log.level", "loud"), ("--no-such", "1")],
    });
    let brief: Vec<_> =
        found.iter().map(|m| (m.key.as_str(), m.value.as_deref(), m.origin.as_str())).collect();
    for expected in [
        ("bnid", None, "auricle.toml line 1"),
        ("bind", Some("5"), "auricle.toml line 2"),
        ("limits.sessions_max", Some("0"), "auricle.toml line 4"),
        ("limits.lease", Some("a TOML array"), "auricle.toml line 5"),
        ("nothing", None, "auricle.toml line 6"),
        ("AURICLE_LOG_FORMT", None, "environment"),
        ("AURICLE_PROBE_BIND", Some("nowhere"), "AURICLE_PROBE_BIND"),
        ("--log-level", Some("loud"), "--log-level"),
        ("--no-such", None, "command line"),
    ] {
        assert!(brief.contains(&expected), "{expected:?} is not in {brief:#?}");
    }
    assert_eq!(brief.len(), 9, "{brief:#?}");
    let text = ConfigError { mistakes: found }.to_string();
    assert!(text.starts_with("the configuration has 9 mistakes\n"), "{text}");
    assert!(text.contains("bnid (auricle.toml line 1): no such key; did you mean bind?"), "{text}");
    assert!(text.contains("did you mean AURICLE_LOG_FORMAT?"), "{text}");
    assert!(
        text.contains("limits.sessions_max = \"0\" (auricle.toml line 4): expected a whole number"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_not_toml_is_one_mistake_with_its_line() {
    let found = mistakes(&file("bind = \"127.0.0.1:1\"\nlog = = 3\n"));
    assert_eq!((found.len(), found[0].origin.as_str()), (1, "auricle.toml line 2"));
}

#[test]
fn values_are_read_exactly_or_not_at_all() {
    let set =
        |key: &'static str, text: &'static str| load(&Given { flags: vec![(key, text)], ..Given::default() });
    for (text, ms) in [("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("4h", 14_400_000), ("1d", 86_400_000)]
    {
        let config = set("limits.sweep_every", text).unwrap();
        assert_eq!(config.limits.sweep_every.as_millis(), ms, "{text}");
    }
    for text in ["", "5", "0s", "-5s", "+5s", "5 s", "1.5s", "s", "31d", "99999999999999999999h", "5S"] {
        assert!(set("limits.sweep_every", text).is_err(), "{text:?}");
    }
    for (text, bytes) in [("64MiB", 64 << 20), ("1024", 1_024), ("1024B", 1_024), ("2GiB", 2 << 30)] {
        assert_eq!(
            set("limits.spool_total_bytes_max", text).unwrap().limits.spool_total_bytes_max,
            bytes,
            "{text}"
        );
    }
    for text in ["", "0", "64MB", "64 MiB", "-1", "1e3", "2048GiB", "MiB"] {
        assert!(set("limits.spool_total_bytes_max", text).is_err(), "{text:?}");
    }
    for (key, text) in [
        ("bind", "8080"),
        ("bind", "example.org:80"),
        ("data_dir", "~/auricle"),
        ("user.time_zone", "Mars/Olympus"),
        ("auth.local_user", "two words"),
        ("auth.local_user", "a/b"),
        ("auth.api_keys", "yes"),
        ("speech.engine", "whisker"),
        ("speech.gate", "maybe"),
        ("speech.gate_pre_roll", "6s"),
        ("speech.gate_threshold", "1.5"),
        ("speech.models_url", "ftp://example.org/models"),
        ("speech.models_url", "https://user:secret@example.org/models"),
        ("sessions.workers", "-1"),
    ] {
        assert!(set(key, text).is_err(), "{key} = {text:?}");
    }
}

#[test]
fn numbers_and_switches_of_the_file_need_no_quotes() {
    let config = load(&file(
        "[limits]\nsessions_max = 1_320\nimage_chunks_max = 9\n[auth]\napi_keys = true\n[log]\nformat = \"json\"\n",
    ))
    .unwrap();
    assert_eq!((config.limits.sessions_max, config.limits.image_chunks_max), (1_320, 9));
    assert!(config.auth.api_keys && config.log.format == LogFormat::Json);
}

#[test]
fn two_names_of_one_key_must_agree_within_a_layer() {
    let config = load(&file("[processing]\nmax_concurrent = 3\n")).unwrap();
    assert_eq!(config.limits.jobs_running_max, 3);
    assert!(load(&file("processing.max_concurrent = 3\nlimits.jobs_running_max = 3\n")).is_ok());
    let found = mistakes(&file("processing.max_concurrent = 3\nlimits.jobs_running_max = 4\n"));
    assert_eq!(found.len(), 1);
    // Between layers the later one wins, under whichever name.
    let config = load(&Given {
        file: Some("limits.jobs_running_max = 4\n"),
        env: vec![("AURICLE_PROCESSING_MAX_CONCURRENT", "6")],
        ..Given::default()
    });
    assert_eq!(config.unwrap().limits.jobs_running_max, 6);
}

#[test]
fn a_bind_beyond_loopback_needs_a_credential() {
    for bind in ["0.0.0.0:8080", "[::]:8080", "192.168.1.4:80"] {
        let found = mistakes(&Given { flags: vec![("bind", bind)], ..Given::default() });
        assert_eq!((found.len(), found[0].key.as_str(), found[0].origin.as_str()), (1, "bind", "--bind"));
        assert!(found[0].expected.contains("AURICLE_ADMIN_KEY"));
        for credential in [
            vec![("AURICLE_ADMIN_KEY", "sixteen-letters-long")],
            vec![("AURICLE_AUTH_API_KEYS", "true")],
            vec![
                ("AURICLE_AUTH_OIDC_ISSUER", "https://securetoken.google.com/p"),
                ("AURICLE_AUTH_OIDC_AUDIENCE", "p"),
                ("AURICLE_AUTH_OIDC_JWKS_URL", "https://www.googleapis.com/jwk"),
            ],
        ] {
            load(&Given { flags: vec![("bind", bind)], env: credential, ..Given::default() }).unwrap();
        }
    }
    let short = Given {
        flags: vec![("bind", "0.0.0.0:1")],
        env: vec![("AURICLE_ADMIN_KEY", "too-short")],
        ..Given::default()
    };
    let found = mistakes(&short);
    assert_eq!((found[0].key.as_str(), found[0].value.as_deref()), ("auth.admin_key", Some("********")));
    for bind in ["127.0.0.1:0", "[::1]:0", "127.3.2.1:0", "[::ffff:127.0.0.1]:0"] {
        load(&Given { flags: vec![("bind", bind)], ..Given::default() }).unwrap();
    }
}

#[test]
fn a_pusher_has_ports_of_its_own_and_beyond_loopback_needs_its_secret() {
    let pusher = |given: &Given| load_for(Shape::Pusher, given);
    let config = pusher(&Given::default()).unwrap();
    assert_eq!(config.bind.to_string(), "127.0.0.1:8090");
    assert_eq!(config.probe_bind.to_string(), "127.0.0.1:8091");
    // Whoever reaches it may speak for every user: a credential of users does not help.
    for (secret, accepted) in
        [(None, false), (Some("too-short"), false), (Some("sixteen-letters-long"), true)]
    {
        let env = secret.map(|secret| ("AURICLE_PUSHER_SECRET", secret));
        let env = env.into_iter().chain([("AURICLE_ADMIN_KEY", "sixteen-letters-long")]).collect();
        let given = Given { flags: vec![("bind", "0.0.0.0:8090")], env, ..Given::default() };
        let loaded = pusher(&given);
        assert_eq!(loaded.is_ok(), accepted, "{secret:?}");
        if let Err(error) = loaded {
            assert!(!error.to_string().contains("too-short") && error.to_string().contains("pusher.secret"));
        }
    }
}

#[test]
fn urls_of_others_are_checked_before_they_are_needed() {
    for (key, url, accepted) in [
        ("pusher.url", "http://pusher:8090", true),
        ("pusher.url", "wss://pusher.example", true),
        ("pusher.url", "pusher:8090", false),
        ("pusher.url", "http://pusher?x=1", false),
        ("pusher.url", "http://ann@pusher:8090", false),
        ("pusher.url", "ws://:secret@pusher:8090", false),
        ("webhooks.transcript", "https://example.org/hook?key=1", true),
        ("webhooks.audio", "ftp://example.org", false),
        ("webhooks.conversation", "http://localhost:9/hook", true),
        ("webhooks.conversation", "http://192.168.1.5/hook", true),
        ("webhooks.conversation", "http://169.254.169.254/latest", false),
        ("llm.url", "http://127.0.0.1:11434", true),
        ("llm.url", "https://api.openai.com/v1", true),
        ("llm.url", "https://ann:secret@example.org", false),
        ("llm.url", "https://example.org?key=1", false),
        ("llm.url", "localhost:11434", false),
        ("speech.deepgram_url", "wss://api.eu.deepgram.com", true),
        ("speech.soniox_url", "http://127.0.0.1:9000/own", true),
        ("speech.soniox_url", "stt-rt.soniox.com", false),
        ("speech.speechmatics_url", "wss://ann:secret@eu2.rt.speechmatics.com", false),
        ("speech.speechmatics_url", "wss://eu2.rt.speechmatics.com/v2?jwt=secret", false),
        ("speech.deepgram_models", "nova-3, nova-2", true),
        ("speech.deepgram_models", "nova-3,,nova-2", false),
        ("speech.key_terms", "Auricle,Dr. Okonkwo", true),
        ("llm.key_header", "api-key", true),
        ("llm.key_header", "api:key", false),
    ] {
        let loaded = load(&Given { flags: vec![(key, url)], ..Given::default() });
        assert_eq!(loaded.is_ok(), accepted, "{key} {url}");
    }
}

#[test]
fn an_address_that_may_hold_a_secret_is_shown_without_it() {
    let kept = "https://ann:hunter2@example.org/hunter2?key=hunter2";
    for key in [
        "llm.url",
        "speech.deepgram_url",
        "speech.soniox_url",
        "speech.speechmatics_url",
        "webhooks.conversation",
        "webhooks.transcript",
        "webhooks.audio",
    ] {
        for text in [kept, "ann:hunter2@example.org", "ftp://ann:hunter2@example.org/x", "http://a/hunter2 x"]
        {
            let found = mistakes(&Given { flags: vec![(key, text)], ..Given::default() });
            assert_eq!(found.len(), 1, "{key} {text}");
            let told = found[0].to_string();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
    let config = load(&Given {
        flags: vec![("webhooks.audio", "https://example.org:8443/hunter2?key=hunter2")],
        ..Given::default()
    });
    assert_eq!(row(&config.unwrap(), "webhooks.audio").0, "https://example.org:8443/…");
}

#[test]
fn the_parts_of_an_issuer_come_together_and_over_a_safe_way() {
    let found = mistakes(&Given { env: vec![("AURICLE_AUTH_OIDC_ISSUER", "https://i")], ..Given::default() });
    let keys: Vec<_> = found.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(keys, ["auth.oidc_audience", "auth.oidc_jwks_url"]);
    for (url, accepted) in [
        ("https://example.org/keys", true),
        ("http://127.0.0.1:4444/keys", true),
        ("http://localhost/keys", true),
        ("http://example.org/keys", false),
        ("http://127.0.0.1.example.org/keys", false),
        ("file:///etc/keys", false),
        ("keys", false),
    ] {
        let issuer = [("AURICLE_AUTH_OIDC_ISSUER", "https://i"), ("AURICLE_AUTH_OIDC_AUDIENCE", "a")];
        let env = issuer.into_iter().chain([("AURICLE_AUTH_OIDC_JWKS_URL", url)]).collect();
        assert_eq!(load(&Given { env, ..Given::default() }).is_ok(), accepted, "{url}");
    }
}

#[test]
fn there_is_one_present_key() {
    let given = Given {
        env: vec![("AURICLE_PROTECTION_KEY", "aaaaaaaabbbbbbbb")],
        flags: vec![("protection.key_file", "/key")],
        ..Given::default()
    };
    let mistakes = mistakes(&given);
    assert!(mistakes.len() == 1 && mistakes[0].key == "protection.key_file", "{mistakes:?}");
    assert!(!format!("{mistakes:?}").contains("aaaaaaaa"));
    let given = Given { flags: vec![("protection.old_key_files", "/a, /b")], ..Given::default() };
    assert_eq!(row(&load(&given).unwrap(), "protection.old_key_files").0, "/a,/b");
}

#[test]
fn a_lease_is_renewed_twice_before_it_ends() {
    let found = mistakes(&Given { flags: vec![("limits.lease_renew_every", "8s")], ..Given::default() });
    assert!(found[0].expected.contains("limits.lease, which is 15s"), "{found:?}");
}

#[test]
fn rules_stand_in_before_a_job_has_waited_too_long() {
    let late = [("limits.llm_fallback_after", "1d"), ("llm.fallback", "local")];
    let found = mistakes(&Given { flags: late.to_vec(), ..Given::default() });
    assert!(found[0].expected.contains("limits.job_away_max, which is 24h"), "{found:?}");
    assert!(load(&Given { flags: late[..1].to_vec(), ..Given::default() }).is_ok());
}

#[test]
fn a_link_asks_for_a_sign_of_life_before_it_is_taken_for_dead() {
    let flags = vec![("limits.link_heartbeat_every", "1m")];
    let found = mistakes(&Given { flags, ..Given::default() });
    assert!(found[0].expected.contains("limits.link_silent_max, which is 1m"), "{found:?}");
}

#[test]
fn a_target_is_warned_of_before_it_is_switched_off() {
    let flags = vec![("limits.target_warn_after", "72h")];
    let found = mistakes(&Given { flags, ..Given::default() });
    assert_eq!(found[0].key, "limits.target_warn_after");
    assert!(found[0].expected.contains("limits.target_off_after, which is 72h"), "{found:?}");
}

#[test]
fn a_password_in_the_address_of_the_pusher_is_not_repeated() {
    let flags = vec![("pusher.url", "http://ann:hunter2@pusher:8090")];
    let error = load(&Given { flags, ..Given::default() }).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn secrets_are_never_shown() {
    const KEY: &str = "hunter2-hunter2-hunter2";
    let config = load(&Given { env: vec![("AURICLE_ADMIN_KEY", KEY)], ..Given::default() }).unwrap();
    assert_eq!(row(&config, "auth.admin_key"), ("********".into(), "AURICLE_ADMIN_KEY".into()));
    assert!(!format!("{config:?} {:?}", config.show()).contains("hunter2"));
    let bad = Given { env: vec![("AURICLE_ADMIN_KEY", "hunter2 hunter2 hunter2")], ..Given::default() };
    let error = load(&bad).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    // No flag, since other users of the machine can read command lines.
    let refused = load(&Given { flags: vec![("auth.admin_key", KEY)], ..Given::default() }).unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
    assert!(keys().iter().all(|key| !key.secret || key.flags.is_empty()));
}

#[test]
fn the_hash_follows_effective_values_but_no_secret() {
    let base = load(&Given::default()).unwrap().hash();
    assert_eq!(base.len(), 12);
    let with = |given: &Given| load(given).unwrap().hash();
    assert_eq!(with(&file("bind = \"127.0.0.1:8080\"\n")), base, "the default, written out");
    assert_ne!(with(&file("limits.sessions_max = 7\n")), base);
    assert_eq!(
        with(&Given { env: vec![("AURICLE_LIMITS_SESSIONS_MAX", "7")], ..Given::default() }),
        with(&file("limits.sessions_max = 7\n"))
    );
    assert_eq!(with(&Given { env: vec![("AURICLE_ADMIN_KEY", "secret-secret")], ..Given::default() }), base);
}

#[test]
fn variables_that_are_not_ours_are_left_alone() {
    let env = vec![
        ("PATH", "/bin"),
        ("AURICLE_CONFIG", "/etc/auricle.toml"),
        ("AURICLE_ADMIN_KEY", ""),
        // What Kubernetes puts beside services called `auricle` and `auricle-pusher`.
        ("AURICLE_SERVICE_HOST", "10.0.0.1"),
        ("AURICLE_SERVICE_PORT", "8080"),
        ("AURICLE_SERVICE_PORT_HTTP", "8080"),
        ("AURICLE_PORT", "tcp://10.0.0.1:8080"),
        ("AURICLE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("AURICLE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("AURICLE_PUSHER_PORT", "tcp://10.0.0.2:8080"),
    ];
    let config = load(&Given { env, ..Given::default() }).unwrap();
    assert!(config.auth.admin_key.is_none());
    assert_eq!(mistakes(&Given { env: vec![("AURICLE_PORT", "8080")], ..Given::default() }).len(), 1);
}

#[test]
fn no_two_keys_share_a_name() {
    let names: Vec<&String> = keys()
        .iter()
        .flat_map(|k| k.envs.iter().chain(&k.flags).chain(&k.aliases).chain([&k.name]))
        .collect();
    let unique: std::collections::HashSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    assert!(keys().iter().all(|key| key.doc.ends_with('.') && !key.form.is_empty()));
}

/// Run with `RENEW=1` to write the page anew.
#[test]
fn the_page_about_configuration_is_the_table_of_keys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    if std::env::var_os("RENEW").is_some() {
        std::fs::write(path, markdown()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page == markdown(), "docs/config.md is out of date: run this test with RENEW=1");
}
