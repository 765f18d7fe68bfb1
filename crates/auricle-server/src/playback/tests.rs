use auricle_audio::recording::Form;
use auricle_core::{Limits, UnixMicros};
use auricle_store::kept::KeptAudio;
use auricle_store::spool::{RunHeader, Spool, SpoolOptions};
use auricle_store::vault::Vault;
use auricle_store::{Upload, UploadState};

use super::*;
use crate::retranscribe::sources::of_runs;

const RATE: u32 = 16_000;

/// Kept audio of one conversation, which began at second 100.
struct Rig {
    spool: Spool,
    kept: KeptAudio,
    vault: Vault,
    dir: tempfile::TempDir,
}

fn at(secs: f64) -> UnixMicros {
    UnixMicros(0).plus_secs_f64(100.0 + secs)
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ring = auricle_store::protect::Keyring::default();
        let kept = KeptAudio::open(dir.path().join("audio"), ring.clone(), 1 << 30).unwrap();
        let options = SpoolOptions { kept: Some(kept.clone()), ..SpoolOptions::from(&Limits::default()) };
        let spool = Spool::open(dir.path().join("spool"), options).unwrap();
        let vault = Vault::open(dir.path().join("uploads"), ring, 1 << 30).unwrap();
        Self { spool, kept, vault, dir }
    }

    /// `secs` of one level, from second `from` of the conversation on, in frames of 20 ms; those from `hole` on for a second are lost.
    fn run(&self, level: i16, rate: u32, role: Option<&str>, from: f64, secs: u32, hole: Option<u32>) {
        let mut run = self.spool.begin(RunHeader {
            run: format!("{level}-{from}"),
            user: "ann".into(),
            conversation: "c".into(),
            process: "p".into(),
            codec: "pcm16".into(),
            sample_rate_hz: rate,
            channels: 1,
            language: None,
            source: auricle_core::Source::Omi,
            role: role.map(str::to_owned),
            first_audio_at: at(from),
        });
        let frame: Vec<u8> = (0..rate / 50).flat_map(|_| level.to_le_bytes()).collect();
        for second in 0..secs {
            match hole == Some(second) {
                // More than a record holds.
                true => run.append(&vec![0; 1 << 24], rate),
                false => (0..50).for_each(|_| run.append(&frame, rate / 50)),
            }
        }
        run.finish();
        self.spool.settle();
    }

    /// An uploaded WAV of one level.
    fn upload(&self, level: i16, from: f64, secs: u32, conversations: &[&str]) -> Source {
        let id = format!("upload-{level}");
        let mut draft = self.vault.create(&"ann".into(), &id.as_str().into(), 1 << 30).unwrap();
        let samples = u64::from(RATE * secs);
        draft.write(&wav::header(RATE, 1, samples).unwrap()).unwrap();
        (0..samples).for_each(|_| draft.write(&level.to_le_bytes()).unwrap());
        draft.keep().unwrap();
        let upload = Upload {
            id: id.as_str().into(),
            user: "ann".into(),
            batch: String::new(),
            sha256: [0; 32],
            bytes: 0,
            form: Form::File.to_string(),
            source: auricle_core::Source::Omi,
            language: None,
            recorded_at: at(from),
            state: UploadState::Done,
            attempts: 1,
            last_error: None,
            heard_secs: f64::from(secs),
            audio_secs: Some(f64::from(secs)),
            conversations: conversations.iter().map(|id| (*id).into()).collect(),
            created_at: at(0.0),
            updated_at: at(0.0),
        };
        Source::of_upload(upload, [self.kept.uploads(), &self.vault]).unwrap()
    }

    fn sources(&self) -> Vec<Source> {
        of_runs(self.kept.runs(&"ann".into(), &"c".into()).unwrap())
    }
}

fn ask() -> Ask {
    Ask { channel: None, from: None, until: None, secs_max: 3_600 }
}

fn plan(sources: Vec<Source>, ask: &Ask) -> Result<Playback, AskError> {
    Playback::of(Span { started_at: at(0.0), finished_at: at(20.0) }, sources, ask)
}

/// What is written: rate, and the samples of each channel.
fn made(playback: Playback) -> (u32, Vec<Vec<i16>>) {
    let (bytes, lanes) = (playback.bytes(), playback.channels().len());
    let mut file = Vec::new();
    playback.write(&mut file).unwrap();
    assert_eq!(file.len() as u64, bytes, "as long as was said");
    let rate = u32::from_le_bytes(file[24..28].try_into().unwrap());
    let samples: Vec<i16> =
        file[44..].chunks_exact(2).map(|sample| i16::from_le_bytes(sample.try_into().unwrap())).collect();
    let lane = |lane: usize| samples.iter().skip(lane).step_by(lanes).copied().collect();
    (rate, (0..lanes).map(lane).collect())
}

/// (level, from, until) in milliseconds.
fn levels(samples: &[i16], rate: u32) -> Vec<(i16, usize, usize)> {
    let ms = |sample: usize| sample * 1_000 / rate as usize;
    let mut found: Vec<(i16, usize, usize)> = Vec::new();
    for (number, level) in samples.iter().enumerate() {
        match found.last_mut() {
            Some(last) if last.0 == *level => last.2 = number + 1,
            _ => found.push((*level, number, number + 1)),
        }
    }
    found.into_iter().map(|(level, from, until)| (level, ms(from), ms(until))).collect()
}

#[test]
fn every_moment_is_where_the_transcript_has_it_and_what_is_missing_is_silence() {
    let rig = Rig::new();
    rig.run(500, RATE, None, 2.0, 3, Some(1));
    rig.run(700, RATE, None, 10.5, 1, None);
    let (rate, lanes) = made(plan(rig.sources(), &ask()).unwrap());
    assert_eq!((rate, lanes.len()), (RATE, 1));
    let said = [
        (0, 0, 2_000),
        (500, 2_000, 3_000),
        (0, 3_000, 4_000),
        (500, 4_000, 5_000),
        (0, 5_000, 10_500),
        (700, 10_500, 11_500),
    ];
    assert_eq!(levels(&lanes[0], rate), said);
}

#[test]
fn channels_lie_beside_each_other_and_one_can_be_had_alone() {
    let rig = Rig::new();
    rig.run(500, RATE, Some("remote"), 1.0, 2, None);
    rig.run(700, RATE, Some("mic"), 0.0, 2, None);
    let both = plan(rig.sources(), &ask()).unwrap();
    assert_eq!(both.channels(), ["mic", "remote"]);
    let (rate, lanes) = made(both);
    assert_eq!(levels(&lanes[0], rate), [(700, 0, 2_000), (0, 2_000, 3_000)]);
    assert_eq!(levels(&lanes[1], rate), [(0, 0, 1_000), (500, 1_000, 3_000)]);
    let of = |channel: &str| plan(rig.sources(), &Ask { channel: Some(channel.into()), ..ask() });
    let (rate, lanes) = made(of("remote").unwrap());
    assert_eq!((lanes.len(), levels(&lanes[0], rate)), (1, vec![(0, 0, 1_000), (500, 1_000, 3_000)]));
    assert_eq!(of("left").err(), Some(AskError::Channel("mic, remote".into())));
}

#[test]
fn a_part_is_the_same_as_in_the_whole() {
    let rig = Rig::new();
    rig.run(500, RATE, None, 1.0, 4, None);
    let part =
        |from: f64, until: f64| plan(rig.sources(), &Ask { from: Some(from), until: Some(until), ..ask() });
    let (rate, lanes) = made(part(0.5, 2.25).unwrap());
    assert_eq!(levels(&lanes[0], rate), [(0, 0, 500), (500, 500, 1_750)]);
    let (rate, lanes) = made(part(3.01, 99.0).unwrap());
    assert_eq!(levels(&lanes[0], rate), [(500, 0, 1_990)]);
    let (rate, lanes) = made(part(-1.0, f64::NAN).unwrap());
    assert_eq!(levels(&lanes[0], rate), [(0, 0, 1_000), (500, 1_000, 5_000)], "there is nothing before");
    for (from, until) in [(2.0, 2.0), (2.0, 1.0), (5.0, 6.0), (f64::INFINITY, 2.0), (0.0, f64::NEG_INFINITY)]
    {
        assert_eq!(part(from, until).err(), Some(AskError::Part(0.0, 5.0)), "{from} {until}");
    }
    // Before the first word.
    rig.run(700, RATE, None, -2.0, 1, None);
    let (rate, lanes) = made(part(-9.0, 2.0).unwrap());
    assert_eq!(levels(&lanes[0], rate), [(700, 0, 1_000), (0, 1_000, 3_000), (500, 3_000, 4_000)]);
    let (rate, lanes) = made(plan(rig.sources(), &ask()).unwrap());
    assert_eq!(levels(&lanes[0], rate), [(0, 0, 1_000), (500, 1_000, 5_000)]);
}

#[test]
fn other_rates_are_brought_to_the_highest() {
    let rig = Rig::new();
    rig.run(8_000, 8_000, None, 1.0, 2, Some(1));
    rig.run(4_000, RATE, None, 4.0, 1, None);
    let (rate, lanes) = made(plan(rig.sources(), &ask()).unwrap());
    assert_eq!((rate, lanes[0].len()), (RATE, 5 * RATE as usize));
    let level = |ms: usize| lanes[0][ms * 16];
    assert!((7_900..8_100).contains(&level(1_500)), "{}", level(1_500));
    assert_eq!([level(500), level(2_500), level(3_500), level(4_500)], [0, 0, 0, 4_000]);
}

#[test]
fn what_lies_over_each_other_is_mixed_and_of_a_shared_file_only_what_is_near() {
    let rig = Rig::new();
    rig.run(500, RATE, None, 0.0, 2, None);
    let mut sources = rig.sources();
    sources.push(rig.upload(40, 1.0, 2, &["c"]));
    let (rate, lanes) = made(plan(sources, &ask()).unwrap());
    assert_eq!(levels(&lanes[0], rate), [(500, 0, 1_000), (540, 1_000, 2_000), (40, 2_000, 3_000)]);
    // Its other conversation is more than a minute away.
    let (rate, lanes) = made(plan(vec![rig.upload(60, -5.0, 120, &["c", "d"])], &ask()).unwrap());
    assert_eq!(levels(&lanes[0], rate), [(60, 0, 80_000)]);
}

#[test]
fn what_is_too_much_is_refused_with_what_to_do() {
    let rig = Rig::new();
    assert_eq!(plan(Vec::new(), &ask()).err(), Some(AskError::Nothing));
    rig.run(500, RATE, None, 9.0, 1, None);
    let short = |until: Option<f64>| plan(rig.sources(), &Ask { secs_max: 5, until, ..ask() });
    assert_eq!(short(None).err(), Some(AskError::TooLong(10.0, 5)));
    assert!(short(Some(5.0)).is_ok());
    rig.run(600, RATE, None, 500_000.0, 1, None);
    let long = plan(rig.sources(), &Ask { secs_max: 1 << 40, ..ask() });
    assert_eq!(long.err(), Some(AskError::TooLarge));
    let many = |count: i16| (1..=count).map(|level| rig.upload(level, 0.0, 1, &["c"])).collect::<Vec<_>>();
    assert_eq!(plan(many(17), &ask()).err(), Some(AskError::TooMany));
    std::fs::remove_dir_all(rig.dir.path().join("uploads")).unwrap();
    assert!(plan(many(16), &ask()).is_ok());
}
