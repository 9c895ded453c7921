//! Values of the file in messages: short, and without passwords.

use toml::de::DeValue;

pub(super) fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => show_text(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Array(items)
            if !items.is_empty() && items.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_))) =>
        {
            "a list of tables".into()
        }
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().take(20).map(|item| show(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "a table".into(),
        DeValue::Datetime(time) => time.to_string(),
    }
}

pub(super) fn show_text(text: &str) -> String {
    const LONGEST: usize = 80;
    // a URL may contain a password before its host, and a token in its query
    let scheme = text.find("://").map(|at| at + 3);
    let end = text.find(['?', '#']).filter(|_| scheme.is_some()).unwrap_or(text.len());
    let (url, query) = text.split_at(end);
    let before = |at: usize| &url[..scheme.filter(|scheme| *scheme <= at).unwrap_or(0)];
    let from = url.rfind('@').filter(|at| *at > 0);
    let mut shown = match from {
        // a password may contain these marks, too, so the URL may begin with a part of it
        _ if query.contains('@') => format!("{}***", before(end)),
        Some(host) => format!("{}***{}", before(host), &url[host..]),
        None => url.to_owned(),
    };
    if let Some(mark) = query.chars().next().filter(|_| !query.contains('@')) {
        shown.extend([mark, '*', '*', '*']);
    }
    let text = shown;
    let cut: String = text.chars().take(LONGEST).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}
