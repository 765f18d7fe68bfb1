//! Prints what PocketSphinx hears in a file, with times, and how long it took.
use auricle_speech::{Engine, Event, PocketSphinxConfig, StreamSpec, pocketsphinx::PocketSphinx};

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a tool that measures and prints")]
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = std::env::args().nth(1).expect("usage: transcribe FILE.wav");
    let file = std::fs::File::open(path).expect("open the file");
    let pcm = auricle_audio::file::read(file, 16_000).expect("read the file");
    let config = PocketSphinxConfig {
        decoders: std::num::NonZeroUsize::new(1),
        backlog_secs_max: 36_000,
        ..PocketSphinxConfig::default()
    };
    let engine = PocketSphinx::new(&config);
    let (sender, mut events) = tokio::sync::mpsc::channel(1_000);
    let spec = StreamSpec {
        sample_rate_hz: 16_000,
        language: "en".into(),
        label: "file".into(),
        key_terms: Vec::new(),
        interim: false,
    };
    let begun = std::time::Instant::now();
    let mut stream = engine.open(spec, sender).expect("open the engine");
    for chunk in pcm.chunks(320) {
        stream.push(chunk);
    }
    stream.finish();
    while let Some(event) = events.recv().await {
        match event {
            Event::Words(words) => {
                let text: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
                println!("{:7.2} {:7.2}  {}", words[0].start, words[words.len() - 1].end, text.join(" "));
            }
            Event::Finished | Event::Failed(_) => break,
            _ => {}
        }
    }
    let seconds = pcm.len() as f64 / 16_000.0;
    println!("{seconds:.1} s of audio in {:.1} s", begun.elapsed().as_secs_f64());
}
