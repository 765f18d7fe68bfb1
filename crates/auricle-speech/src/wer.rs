//! Word error rate: how many words a recogniser got wrong, for tests, examples and benchmarks.

/// Mistakes against words spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordErrors {
    /// Words replaced, left out or put in.
    pub mistakes: usize,
    /// Words of the reference.
    pub words: usize,
}

impl WordErrors {
    /// Compares `heard` with the `spoken` reference: lower case, letters, digits and apostrophes only.
    #[must_use]
    pub fn between(spoken: &str, heard: &str) -> Self {
        let (spoken, heard) = (plain(spoken), plain(heard));
        let mut row: Vec<usize> = (0..=heard.len()).collect();
        for (index, word) in spoken.iter().enumerate() {
            let mut next = Vec::with_capacity(row.len());
            next.push(index + 1);
            for (column, other) in heard.iter().enumerate() {
                let replaced = row[column] + usize::from(word != other);
                next.push(replaced.min(row[column + 1] + 1).min(next[column] + 1));
            }
            row = next;
        }
        Self { mistakes: row[heard.len()], words: spoken.len() }
    }

    /// Mistakes for each word spoken: 0 when all is right; may exceed 1. 0 without words.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.words == 0 { 0.0 } else { self.mistakes as f64 / self.words as f64 }
    }
}

impl std::ops::AddAssign for WordErrors {
    fn add_assign(&mut self, other: Self) {
        self.mistakes += other.mistakes;
        self.words += other.words;
    }
}

fn plain(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_replaced_left_out_and_put_in_words() {
        let errors = |spoken, heard| WordErrors::between(spoken, heard).mistakes;
        assert_eq!(errors("Good morning, Sarah.", "good morning sarah"), 0);
        assert_eq!(errors("good morning", "good evening"), 1);
        assert_eq!(errors("good morning to you", "good you"), 2);
        assert_eq!(errors("good", "a good day"), 2);
        assert_eq!(errors("a b", ""), 2);
        assert_eq!(WordErrors::between("a b c d", "a b x d").rate(), 0.25);
    }
}
