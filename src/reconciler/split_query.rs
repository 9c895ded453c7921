//! Queries about many prompts, in parts if an answer is too large.

use std::collections::BTreeSet;

use crate::decision::PromptName;
use crate::prometheus::client::{PrometheusError, QueryResult};

/// Prompts that one query is about, or several queries if the answer is too large.
#[derive(Debug, Default)]
pub struct SplitQuery {
    pub left: Vec<BTreeSet<PromptName>>,
    pub answers: Vec<(BTreeSet<PromptName>, QueryResult)>,
}

impl SplitQuery {
    pub fn of(prompts: BTreeSet<PromptName>) -> Self {
        Self { left: vec![prompts], answers: Vec::new() }
    }

    pub fn answered(&mut self, mut prompts: BTreeSet<PromptName>, answer: QueryResult) {
        let middle = prompts.iter().nth(prompts.len() / 2).filter(|_| prompts.len() > 1).cloned();
        match (&answer, middle) {
            (Err(PrometheusError::TooLarge(_)), Some(middle)) => {
                let rest = prompts.split_off(&middle);
                self.left.extend([rest, prompts]);
            }
            _ => self.answers.push((prompts, answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_large_is_asked_for_in_parts() {
        let prompt = |number: u32| PromptName::parse(&format!("p{number}")).expect("a name");
        let all: BTreeSet<_> = (0..128).map(prompt).collect();
        let mut parts = SplitQuery::of(all.clone());
        while let Some(some) = parts.left.pop() {
            // the answer about p7 is too large by itself
            let too_large = some.len() > 20 || some.contains(&prompt(7));
            let answer =
                if too_large { Err(PrometheusError::TooLarge("too large".to_owned())) } else { Ok(Vec::new()) };
            parts.answered(some, answer);
        }
        let missing: Vec<_> =
            parts.answers.iter().filter(|(_, answer)| answer.is_err()).map(|(some, _)| some).collect();
        assert_eq!(missing, [&BTreeSet::from([prompt(7)])]);
        assert_eq!(parts.answers.iter().map(|(some, _)| some.len()).sum::<usize>(), 128, "each once");
        assert_eq!(parts.answers.iter().flat_map(|(some, _)| some.clone()).collect::<BTreeSet<_>>(), all);
    }
}
