//! Whether an expression of PromQL stands alone, so that others can be put beside it in one query. Pure.
//!
//! The sender of an alert writes the expression. One that closes a bracket that it did not open, or hides what follows in
//! a string or a comment, would decide what the others answer.

/// Whether its brackets and strings end where it ends, and it has no comment.
pub fn stands_alone(expression: &str) -> bool {
    let mut open = Vec::new();
    let mut characters = expression.chars();
    while let Some(character) = characters.next() {
        match character {
            '#' => return false,
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(character) => return false,
            '"' | '\'' | '`' if !ends_string(&mut characters, character) => return false,
            _ => {}
        }
    }
    open.is_empty()
}

/// Reads to the end of a string that `quote` began. In backquotes, a backslash has no meaning; only there may a line end.
fn ends_string(characters: &mut std::str::Chars<'_>, quote: char) -> bool {
    while let Some(character) = characters.next() {
        match character {
            _ if character == quote => return true,
            '\\' if quote != '`' => drop(characters.next()),
            '\n' if quote != '`' => return false,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_that_reaches_beyond_itself_does_not_stand_alone() {
        for alone in [
            "",
            "vector(1)",
            r#"sum(rate(a{b="x)",c='"('}[5m])) by (d) / (1 + 2)"#,
            r#"label_replace(a, "b", "\"(", "", "")"#,
            "a{b=`\\`} > bool 1",
            "a{b=`\n(`}",
            r##"a{b="#"}"##,
            "a{b='é['}[1m:5s] @ 17",
        ] {
            assert!(stands_alone(alone), "{alone}");
        }
        for beyond in [
            r#"vector(1)), "prompt_rollback_asked", "1", "", "") or label_replace((vector(1)"#,
            "vector(1",
            "vector(1))",
            "a)[5m](",
            "(a]",
            "a{b=\"",
            r#"a{b="\"}"#,
            "a{b='\n'}",
            "a{b=`",
            "a # b",
            "a{b=`\\`}`",
        ] {
            assert!(!stands_alone(beyond), "{beyond}");
        }
    }
}
