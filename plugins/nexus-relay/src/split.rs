//! Splits a long answer into messages.

/// Separators at which a text is split, best first.
const SEPARATORS: [&str; 4] = ["\n\n", "\n", ". ", " "];

/// Splits a text into parts of at most `limit` UTF-16 code units. Splits between paragraphs if that doesn't make short
/// parts, otherwise between lines, sentences or words, and within a word only if there is no separator.
pub(crate) fn parts(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (part, after) = rest.split_at(split_position(rest, limit));
        parts.push(part.trim_end());
        rest = after.trim_start();
    }
    parts
}

/// Returns the position at which to split a text; its end if it fits.
fn split_position(text: &str, limit: usize) -> usize {
    let fits = fitting_length(text, limit);
    if fits == text.len() {
        return fits;
    }
    let last_position =
        |separator: &&str| text[..fits].rfind(*separator).map(|at| at + separator.len()).filter(|at| *at > fits / 2);
    SEPARATORS.iter().find_map(last_position).unwrap_or(fits)
}

/// Returns how many bytes of a text fit into the limit. Always includes at least one character, so that splitting
/// terminates.
fn fitting_length(text: &str, limit: usize) -> usize {
    let mut units = 0;
    for (at, character) in text.char_indices() {
        units += character.len_utf16();
        if units > limit && at > 0 {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_text_that_fits() {
        assert_eq!(parts(" one two ", 7), ["one two"]);
        assert_eq!(parts("", 7), [""; 0]);
        assert_eq!(parts(" \n ", 7), [""; 0]);
    }

    #[test]
    fn splits_at_the_best_separator() {
        assert_eq!(parts("one two\n\nthree. four", 14), ["one two", "three. four"]);
        assert_eq!(parts("one two\nthree. four", 14), ["one two", "three. four"]);
        assert_eq!(parts("one two. three four", 14), ["one two.", "three four"]);
        assert_eq!(parts("one two three four", 14), ["one two three", "four"]);
        assert_eq!(parts("a\n\ntwo three four five", 20), ["a\n\ntwo three four", "five"], "avoids short parts");
    }

    #[test]
    fn splits_within_a_word_without_a_separator() {
        assert_eq!(parts("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(parts("😀😀😀", 4), ["😀😀", "😀"]);
        assert_eq!(parts("😀😀", 3), ["😀", "😀"]);
        assert_eq!(parts("😀", 1), ["😀"]);
    }

    #[test]
    fn keeps_all_text_within_the_limit() {
        let text = "Lorem ipsum dolor sit amet. ".repeat(1000);
        let parts = parts(&text, 4000);
        assert!(
            parts
                .iter()
                .all(|part| (2000..=4000).contains(&part.encode_utf16().count()) || part == parts.last().unwrap())
        );
        assert_eq!(parts.join(" "), text.trim());
    }
}
