//! What is too long for the model's window: read in parts, each summarised by a call whose result is a recorded step.

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::prompt::{self, EDITION, Line};
use super::{OpenAi, answer};
use crate::{Request, UnderstandError};

/// Share of a part's room that its notes may take: so much shorter is each round at least.
const NOTES_SHARE: usize = 4;
/// Least tokens of lines in a call; a window with less is none.
const ROOM_MIN: usize = 200;
/// Bytes of a part's hash in the name of its step.
const HASH_BYTES: usize = 8;

impl OpenAi {
    /// Notes that have room in `room` tokens.
    pub(super) async fn summarised(
        &self,
        request: &Request<'_>,
        mut lines: Vec<Line>,
        room: usize,
        id: &str,
    ) -> Result<Vec<Line>, UnderstandError> {
        let begun = self.clock.now();
        let mut called = false;
        // Ends: notes are shorter than what they are of.
        for round in 1.. {
            let notes = round > 1;
            let part_room = prompt::summarise(request, &[], notes).room(self.client.window);
            if part_room.min(room) < ROOM_MIN {
                let reason = "the language model's window has no room for a transcript".into();
                return Err(UnderstandError::Permanent(reason));
            }
            let mut next = Vec::new();
            for part in parts(lines, part_room) {
                next.extend(
                    self.part(request, &part, notes, part_room / NOTES_SHARE, (begun, &mut called), id)
                        .await?,
                );
            }
            lines = next;
            if tokens(&lines) <= room {
                break;
            }
        }
        Ok(lines)
    }

    /// Notes on one part: recorded ones, or the model's.
    async fn part(
        &self,
        request: &Request<'_>,
        part: &[Line],
        notes: bool,
        tokens_max: usize,
        (begun, called): (Instant, &mut bool),
        id: &str,
    ) -> Result<Vec<Line>, UnderstandError> {
        let name = step_name(&self.long.name, part);
        if let Some(known) = request.steps.recorded(&name).as_deref().and_then(read) {
            return Ok(known);
        }
        // What is done is recorded: ending here costs nothing, and a deadline that is missed costs an attempt.
        let passed = self.clock.now().saturating_duration_since(begun);
        if *called && passed + self.limits.llm_call_max * 2 > self.limits.job_attempt_max {
            let reason = "a long transcript takes more than one attempt".into();
            return Err(UnderstandError::Away { reason, after: std::time::Duration::ZERO });
        }
        *called = true;
        let call = prompt::summarise(request, part, notes);
        let read = |content: &str| answer::notes(content, part, tokens_max);
        let found = self.client.ask(&self.long, &call, id, read).await.map_err(UnderstandError::from)?;
        request.steps.record(&name, &write(&found)).await?;
        Ok(found)
    }
}

/// Of all of them.
pub(super) fn tokens(lines: &[Line]) -> usize {
    lines.iter().map(Line::tokens).sum()
}

/// All of `lines` in their order, in parts of `room` tokens at most; a line that is longer is split under its number.
fn parts(lines: Vec<Line>, room: usize) -> Vec<Vec<Line>> {
    let mut parts: Vec<Vec<Line>> = Vec::new();
    let mut left = 0;
    for line in lines.into_iter().flat_map(|line| split(line, room)) {
        let tokens = line.tokens();
        if tokens > left || parts.is_empty() {
            parts.push(Vec::new());
            left = room;
        }
        left = left.saturating_sub(tokens);
        parts.last_mut().expect("one was pushed").push(line);
    }
    parts
}

fn split(line: Line, room: usize) -> Vec<Line> {
    if line.tokens() <= room {
        return vec![line];
    }
    // No character is more than a token; its numbers and the end of the line are some.
    let chars: Vec<_> = line.text.chars().collect();
    let pieces = chars.chunks((room / 2).max(1)).map(|piece| piece.iter().collect());
    pieces.map(|text| Line { numbers: line.numbers.clone(), text }).collect()
}

/// The same exactly if the same was asked: a changed configuration or transcript begins anew.
fn step_name(model: &str, part: &[Line]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{model}\n{EDITION}\n"));
    for line in part {
        hash.update(format!("{:?} {}\n", line.numbers, line.text));
    }
    let hash: String = hash.finalize().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let first = part.first().and_then(|line| line.numbers.first()).copied().unwrap_or_default();
    let last = part.last().and_then(|line| line.numbers.last()).copied().unwrap_or_default();
    format!("notes:{first}-{last}:{hash}")
}

fn write(lines: &[Line]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| (&line.numbers, &line.text)).collect();
    serde_json::to_string(&lines).expect("plain data")
}

fn read(text: &str) -> Option<Vec<Line>> {
    let lines: Vec<(Vec<usize>, String)> = serde_json::from_str(text).ok()?;
    Some(lines.into_iter().map(|(numbers, text)| Line { numbers, text }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize, text: &str) -> Line {
        Line { numbers: vec![number], text: text.into() }
    }

    #[test]
    fn parts_hold_everything_once_in_order_and_within_their_room() {
        let lines: Vec<_> =
            (1..=500).map(|at| line(at, &format!("S1: {}", "word ".repeat(at % 40)))).collect();
        let parts = parts(lines.clone(), 300);
        assert!(parts.len() > 10 && parts.iter().all(|part| tokens(part) <= 300));
        assert_eq!(parts.concat(), lines);
    }

    #[test]
    fn a_line_longer_than_a_part_is_split_under_its_number() {
        let long = "é".repeat(1_000);
        let parts = parts(vec![line(1, "a"), line(2, &long), line(3, "b")], 200);
        assert!(parts.iter().all(|part| tokens(part) <= 200));
        let of_two = parts.concat().into_iter().filter(|line| line.numbers == [2]);
        assert_eq!(of_two.map(|line| line.text).collect::<String>(), long);
    }

    #[test]
    fn a_steps_name_tells_parts_models_and_texts_apart() {
        let part = [line(3, "a"), line(9, "b")];
        let name = step_name("m1", &part);
        assert!(name.starts_with("notes:3-9:"), "{name}");
        assert_eq!(name, step_name("m1", &part));
        assert_ne!(name, step_name("m2", &part));
        assert_ne!(name, step_name("m1", &[line(3, "a"), line(9, "c")]));
        assert_eq!(read(&write(&part)).unwrap(), part);
    }
}
