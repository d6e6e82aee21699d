//! Cuts a long answer into messages.

/// Where a text is cut, the best place first.
const PLACES: [&str; 4] = ["\n\n", "\n", ". ", " "];

/// The parts of a text, none longer than `limit` UTF-16 code units: cut between paragraphs if that makes no short parts,
/// else between lines, sentences or words, and in a word only if nothing else is there.
pub(crate) fn parts(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (part, after) = rest.split_at(cut(rest, limit));
        parts.push(part.trim_end());
        rest = after.trim_start();
    }
    parts
}

/// Where to cut a text that begins a part; its end if all of it fits.
fn cut(text: &str, limit: usize) -> usize {
    let fits = fitting(text, limit);
    if fits == text.len() {
        return fits;
    }
    let far_enough = |place: &&str| text[..fits].rfind(*place).map(|at| at + place.len()).filter(|at| *at > fits / 2);
    PLACES.iter().find_map(far_enough).unwrap_or(fits)
}

/// How many bytes of a text fit into the limit. One character always does, or there would be no end.
fn fitting(text: &str, limit: usize) -> usize {
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
    fn what_fits_stays_whole() {
        assert_eq!(parts(" one two ", 7), ["one two"]);
        assert_eq!(parts("", 7), [""; 0]);
        assert_eq!(parts(" \n ", 7), [""; 0]);
    }

    #[test]
    fn the_best_place_is_taken() {
        assert_eq!(parts("one two\n\nthree. four", 14), ["one two", "three. four"]);
        assert_eq!(parts("one two\nthree. four", 14), ["one two", "three. four"]);
        assert_eq!(parts("one two. three four", 14), ["one two.", "three four"]);
        assert_eq!(parts("one two three four", 14), ["one two three", "four"]);
        assert_eq!(parts("a\n\ntwo three four five", 20), ["a\n\ntwo three four", "five"], "no part is made short");
    }

    #[test]
    fn what_has_no_place_is_cut_all_the_same() {
        assert_eq!(parts("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(parts("😀😀😀", 4), ["😀😀", "😀"]);
        assert_eq!(parts("😀😀", 3), ["😀", "😀"]);
        assert_eq!(parts("😀", 1), ["😀"]);
    }

    #[test]
    fn nothing_is_lost_and_nothing_too_long() {
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
