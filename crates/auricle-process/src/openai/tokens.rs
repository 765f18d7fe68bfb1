//! How many tokens a text has, estimated so that it is never less than models count.

/// ASCII characters of one token. Models count 4 to 5 in English prose, less in code and numbers.
const ASCII_PER_TOKEN: usize = 3;

/// Never less than common tokenisers count, for prose: a third of the ASCII characters, and each other character.
pub(super) fn estimate(text: &str) -> usize {
    let (ascii, other) = text.chars().fold((0, 0), |(ascii, other): (usize, usize), c| match c.is_ascii() {
        true => (ascii + 1, other),
        false => (ascii, other + 1),
    });
    ascii.div_ceil(ASCII_PER_TOKEN) + other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_beyond_ascii_count_for_themselves() {
        assert_eq!(estimate(""), 0);
        assert_eq!(estimate("a"), 1);
        assert_eq!(estimate("abcdef"), 2);
        assert_eq!(estimate("Grüße"), 1 + 2);
        assert_eq!(estimate("会議"), 2);
    }
}
