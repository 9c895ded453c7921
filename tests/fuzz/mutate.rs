//! Almost valid inputs: files of the corpus with a few changes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

/// Longer inputs find nothing more.
const LONGEST: usize = 64 << 10;

#[derive(Debug, Clone)]
enum Change {
    Byte(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index, u8),
    /// Takes a part of another file.
    Take(Index, Index, Index, Index),
    Token(Index, Index),
    /// Replaces a number with a token.
    Number(Index, Index),
    End(Index),
}

/// The tokens of libFuzzer's dictionary, one in quotes on each line.
pub fn tokens(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).expect("a dictionary");
    let quoted = text.lines().filter(|line| line.starts_with('"'));
    quoted.map(|line| serde_json::from_str::<String>(line).expect("a token").into_bytes()).collect()
}

/// Files of `corpus`, each changed in one to six places.
pub fn inputs(corpus: Vec<Vec<u8>>, tokens: Vec<Vec<u8>>) -> impl Strategy<Value = Arc<[u8]>> {
    let at = any::<Index>;
    let change = prop_oneof![
        2 => (at(), any::<u8>()).prop_map(|(place, byte)| Change::Byte(place, byte)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(place, bytes)| Change::Insert(place, bytes)),
        2 => (at(), at()).prop_map(|(start, end)| Change::Remove(start, end)),
        1 => (at(), at(), 1..40u8).prop_map(|(start, end, times)| Change::Repeat(start, end, times)),
        2 => (at(), at(), at(), at()).prop_map(|(file, start, end, place)| Change::Take(file, start, end, place)),
        3 => (at(), at()).prop_map(|(place, token)| Change::Token(place, token)),
        4 => (at(), at()).prop_map(|(place, token)| Change::Number(place, token)),
        1 => at().prop_map(Change::End),
    ];
    (at(), prop::collection::vec(change, 1..7)).prop_map(move |(file, changes)| {
        let mut input = file.get(&corpus).clone();
        for change in changes {
            make(&mut input, change, &corpus, &tokens);
            input.truncate(LONGEST);
        }
        input.into()
    })
}

fn make(input: &mut Vec<u8>, change: Change, corpus: &[Vec<u8>], tokens: &[Vec<u8>]) {
    let place = |index: Index| index.index(input.len() + 1);
    let range = |start: Index, end: Index, length: usize| {
        let (a, b) = (start.index(length + 1), end.index(length + 1));
        // near each other: distant positions would remove too much
        let (a, b) = (a.min(b), a.max(b));
        a..b.min(a + 200)
    };
    match change {
        Change::Byte(at, byte) => {
            let at = place(at);
            if let Some(old) = input.get_mut(at) {
                *old = byte;
            }
        }
        Change::Insert(at, bytes) => {
            let at = place(at);
            input.splice(at..at, bytes);
        }
        Change::Remove(start, end) => drop(input.drain(range(start, end, input.len()))),
        Change::Repeat(start, end, times) => {
            let range = range(start, end, input.len());
            let part = input[range.clone()].repeat(usize::from(times));
            input.splice(range.end..range.end, part);
        }
        Change::Take(file, start, end, at) => {
            let (file, at) = (file.get(corpus), place(at));
            input.splice(at..at, file[range(start, end, file.len())].iter().copied());
        }
        Change::Token(at, token) => {
            let at = place(at);
            input.splice(at..at, token.get(tokens).iter().copied());
        }
        Change::Number(at, token) => {
            let at = place(at);
            let Some(start) = (at..input.len()).find(|&at| input[at].is_ascii_digit()) else { return };
            let end = (start..input.len()).find(|&at| !input[at].is_ascii_digit()).unwrap_or(input.len());
            input.splice(start..end, token.get(tokens).iter().copied());
        }
        Change::End(at) => {
            let at = place(at);
            input.truncate(at);
        }
    }
}
