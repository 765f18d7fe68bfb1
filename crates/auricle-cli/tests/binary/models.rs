//! `auricle models`, what doctor says about Whisper, and the gate in a running server.

use std::io::{Read as _, Write as _};

use crate::rig::{Server, file, run, text};

#[test]
fn models_are_listed_and_an_unknown_one_is_answered_with_the_known() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    let part = folder.path().join("models/ggml-tiny.bin.part");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, [0; 1_000]).unwrap();
    let listed = run(&["models", "list", "--json", "--data-dir", data, "--speech-whisper-model", "small"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!((&row("tiny")["state"], &row("tiny")["bytes_here"]), (&"partial".into(), &1_000.into()));
    assert_eq!(
        (&row("base.en")["state"], &row("base.en")["multilingual"]),
        (&"absent".into(), &false.into())
    );
    assert_eq!((&row("small")["chosen"], &row("base")["chosen"]), (&true.into(), &false.into()));
    let table = text(&run(&["models", "list", "--data-dir", data]).stdout);
    assert!(table.contains("base (speech.whisper_model)") && table.contains("147 MB"), "{table}");
    let unknown = run(&["models", "pull", "huge", "--data-dir", data]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("`huge`") && text(&unknown.stderr).contains("large-v3"));
}

#[test]
fn a_pull_from_a_place_without_the_model_says_where_to_look() {
    let folder = tempfile::TempDir::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mirror", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 2_048];
        let read = socket.read(&mut request).unwrap();
        socket
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let data = folder.path().to_str().unwrap();
    let pulled = run(&["models", "pull", "tiny.en", "--data-dir", data, "--speech-models-url", &url]);
    assert_eq!(pulled.status.code(), Some(1));
    let said = text(&pulled.stderr);
    assert!(said.contains("404") && said.contains("speech.models_url"), "{said}");
    assert!(served.join().unwrap().starts_with("GET /mirror/ggml-tiny.en.bin HTTP/1.1"));
}

#[test]
fn doctor_says_how_to_get_whisper() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    let ports = ["--bind", "127.0.0.1:0", "--probe-bind", "127.0.0.1:0"];
    let doctor = run(&[&["doctor", "--data-dir", data, "--speech", "whisper"], &ports[..]].concat());
    assert_eq!(doctor.status.code(), Some(1));
    let said = text(&doctor.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    // Without the feature the build is what is missing, with it the model.
    let mend = if cfg!(feature = "whisper") { "auricle models pull base" } else { "--features whisper" };
    assert!(said.contains(mend), "{said}");
}

#[test]
fn behind_the_gate_speech_becomes_the_same_record() {
    let server = Server::start(&[("SPEECH_DECODERS", "1"), ("SPEECH_GATE", "on")]);
    let path = file("crates/auricle-speech/tests/data/please-send.wav");
    let result = server.ask_json(&["stream", path.to_str().unwrap(), "--speed", "0", "--wait"]);
    let heard =
        result["segments"].as_array().unwrap().iter().map(|segment| segment["text"].as_str().unwrap());
    let heard = heard.collect::<Vec<_>>().join(" ");
    assert!(heard.contains("Friday"), "{heard}");
    assert_eq!(result["conversation"]["status"], "completed", "{result}");
    // The recorder is younger than the engine: what the gate counts arrives all the same.
    let addresses = std::fs::read_to_string(server.data().join("addresses.json")).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&addresses).unwrap();
    let probe = addresses["probe"].as_str().unwrap();
    let mut socket = std::net::TcpStream::connect(probe).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nhost: {probe}\r\nconnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    socket.read_to_string(&mut metrics).unwrap();
    let counted = |part: &str| {
        let name = format!("auricle_gate_audio_seconds_total{{engine=\"pocketsphinx\",part=\"{part}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
        line.unwrap_or_else(|| panic!("no {name}in {metrics}")).parse::<u64>().unwrap()
    };
    assert!(counted("heard") >= 5 && counted("sent") >= 2 && counted("sent") <= counted("heard"));
}
