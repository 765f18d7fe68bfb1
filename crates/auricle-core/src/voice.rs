//! Whose voice it is: the nearest of the voices that are known, if it is near enough and nobody else's is about as near.
//!
//! Vectors come from a voice model, which is another's matter; those of different models are not compared.

use crate::ids::PersonId;

/// What makes a match certain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certainty {
    /// Least cosine similarity, -1 to 1.
    pub similarity_min: f32,
    /// How much nearer than the next person at least.
    pub margin_min: f32,
}

impl Default for Certainty {
    /// Between two sentences of one voice and of two voices, for the common speaker-verification models. A model's own numbers
    /// are better.
    fn default() -> Self {
        Self { similarity_min: 0.65, margin_min: 0.05 }
    }
}

/// The person whose voice is nearest.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    /// Who.
    pub person: PersonId,
    /// Cosine similarity of their nearest voice, -1 to 1.
    pub similarity: f32,
    /// The same of the next person, if there is one.
    pub runner_up: Option<f32>,
}

impl Nearest {
    /// Whether it is them.
    pub fn is_certain(&self, certainty: Certainty) -> bool {
        self.similarity >= certainty.similarity_min
            && self.runner_up.is_none_or(|next| self.similarity - next >= certainty.margin_min)
    }
}

/// The person with the voice nearest to `query`; `None` if none can be compared with it. Voices of another length, without any
/// length, or not of finite numbers are passed over. Of persons equally near, the first.
pub fn nearest<'v>(
    query: &[f32],
    voices: impl IntoIterator<Item = (&'v PersonId, &'v [f32])>,
) -> Option<Nearest> {
    let mut best: Vec<(&PersonId, f32)> = Vec::new();
    for (person, voice) in voices {
        let Some(similarity) = cosine(query, voice) else { continue };
        match best.iter_mut().find(|(known, _)| *known == person) {
            Some((_, known)) => *known = known.max(similarity),
            None => best.push((person, similarity)),
        }
    }
    // Stable: the first of equals stays first.
    best.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let (person, similarity) = best.first()?;
    let runner_up = best.get(1).map(|(_, similarity)| *similarity);
    Some(Nearest { person: (*person).clone(), similarity: *similarity, runner_up })
}

/// `None` if the two cannot be compared.
fn cosine(a: &[f32], b: &[f32]) -> Option<f32> {
    if a.len() != b.len() {
        return None;
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let similarity = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    similarity.is_finite().then_some((similarity as f32).clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &[f32], voices: &[(&str, Vec<f32>)]) -> Option<Nearest> {
        let voices: Vec<_> = voices.iter().map(|(id, voice)| (PersonId::new(*id), voice)).collect();
        nearest(query, voices.iter().map(|(id, voice)| (id, voice.as_slice())))
    }

    #[test]
    fn the_nearest_person_counts_by_their_nearest_voice() {
        let voices = [("bob", vec![0.0, 1.0]), ("ana", vec![-1.0, 0.0]), ("ana", vec![2.0, 0.2])];
        let nearest = found(&[1.0, 0.0], &voices).unwrap();
        assert_eq!((nearest.person.as_str(), nearest.runner_up), ("ana", Some(0.0)));
        assert!(nearest.similarity > 0.99 && nearest.is_certain(Certainty::default()), "{nearest:?}");
    }

    #[test]
    fn who_is_too_far_or_not_alone_is_not_certain() {
        let far = found(&[1.0, 0.0], &[("ana", vec![0.5, 1.0])]).unwrap();
        assert!(!far.is_certain(Certainty::default()), "{far:?}");
        let two = found(&[1.0, 0.0], &[("ana", vec![1.0, 0.1]), ("bob", vec![1.0, 0.11])]).unwrap();
        assert!(two.similarity > 0.99 && !two.is_certain(Certainty::default()), "{two:?}");
        let same = found(&[1.0, 0.0], &[("ana", vec![1.0, 0.1]), ("ana", vec![1.0, 0.11])]).unwrap();
        assert!(same.is_certain(Certainty::default()), "two voices of one person do not compete: {same:?}");
    }

    #[test]
    fn what_cannot_be_compared_is_passed_over() {
        let voices = [
            ("ana", vec![1.0]),
            ("bob", vec![0.0, 0.0]),
            ("cem", vec![f32::NAN, 1.0]),
            ("dan", vec![f32::MAX, f32::MAX]),
        ];
        assert_eq!(found(&[1.0, 1.0], &voices).unwrap().person.as_str(), "dan");
        assert_eq!(found(&[0.0, 0.0], &voices), None);
        assert_eq!(found(&[], &[("ana", vec![])]), None);
        assert_eq!(found(&[1.0], &[]), None);
    }
}
