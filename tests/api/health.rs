//! What the page shows of Prometheus' measurements, if there are many or if some are missing.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use percent_encoding::percent_decode_str;
use prompt_rollback_testkit::lying_target::LyingTarget;

use crate::common::{SOON, World, copy_prompt, eventually};

const ERRORS: &str = "prompt_version:request_errors:ratio_rate5m";
const P99: &str = "prompt_version:request_duration_seconds:p99_5m";
const REQUESTS: &str = "prompt_version:requests:count5m";
/// What the rules record of each version.
const RECORDED: [(&str, &str); 5] = [
    (REQUESTS, "412.03361344537814"),
    (ERRORS, "0.07317073170731707"),
    (P99, "2.5012345678901234"),
    ("prompt_version:request_duration_seconds:p99_baseline", "1.2501234567890123"),
    ("prompt_version_signal:coverage:state", "4"),
];

/// A Prometheus that has recorded this of each of these versions. As a real one, it writes names and whole numbers unless they are
/// rounded. It refuses the queries that are `broken`: by the path and the series.
fn prometheus(versions: Vec<(String, String)>, broken: &'static [(&'static str, &'static str)]) -> Result<LyingTarget> {
    LyingTarget::start(move |request| {
        let request = percent_decode_str(request).decode_utf8_lossy();
        let field = |name: &str| request.split_once(&format!("{name}="))?.1.split('&').next();
        let query = field("query").unwrap_or_default();
        if broken.iter().any(|(path, series)| request.contains(path) && query.contains(series)) {
            return (500, r#"{"status":"error","error":"a store is away"}"#.to_owned());
        }
        let is_range = request.contains("/query_range ");
        let from: f64 = field("start").and_then(|from| from.parse().ok()).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let is_rounded = query.starts_with("round(");
        let some: Option<Vec<&str>> = query
            .split_once("prompt=~\"")
            .map(|(_, rest)| rest.split('"').next().unwrap_or_default().split('|').collect());
        let asked = RECORDED.iter().filter(|(series, _)| query.contains(series));
        let mut all = Vec::new();
        for (series, value) in asked {
            let (name, value) = match is_rounded {
                true => (String::new(), &value[..value.len().min(8)]),
                false => (format!(r#""__name__":"{series}","#), *value),
            };
            let points = match is_range {
                true => {
                    let points = (0..30).map(|step| format!("[{},\"{value}\"]", from + f64::from(step) * 120.0));
                    format!("\"values\":[{}]", points.collect::<Vec<_>>().join(","))
                }
                false => format!("\"value\":[{now}.123,\"{value}\"]"),
            };
            let wanted = |prompt: &str| some.as_ref().is_none_or(|some| some.binary_search(&prompt).is_ok());
            let of_versions = versions.iter().filter(|(prompt, _)| wanted(prompt));
            all.extend(of_versions.map(|(prompt, version)| {
                format!(r#"{{"metric":{{{name}"prompt":"{prompt}","version":"{version}"}},{points}}}"#)
            }));
        }
        let kind = if is_range { "matrix" } else { "vector" };
        (200, format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":[{}]}}}}"#, all.join(",")))
    })
}

async fn page(world: &World, path: &str) -> Result<String> {
    let answer = world.http().clone().header("accept", "text/html").get(path).await?;
    ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
    Ok(answer.text())
}

/// All figures in one answer would be larger than the receiver reads at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_prompts_have_their_health_and_their_lines() -> Result<()> {
    let names: Vec<String> = (0..10_000).map(|number| format!("team-{}/prompt-{number:05}", number % 7)).collect();
    let versions = names.iter().flat_map(|name| ["v1", "v2"].map(|version| (name.clone(), version.to_owned())));
    let target = prometheus(versions.collect(), &[("/query_range ", P99)])?;
    let world = World::with(&[("PROMETHEUS__URL", &target.url()), ("PROMETHEUS__TIMEOUT", "5s")]).await?;
    world.ship("model").await?;
    copy_prompt(&world.redis, "model", &names).await?;
    let shown = eventually("the last hour", SOON, async || {
        page(&world, "/?search=prompt-09").await.ok().filter(|page| page.contains("class=\"spark\""))
    })
    .await?;
    assert!(!shown.contains("blind") && !shown.contains("larger than"), "{shown}");
    for expected in ["<tr data-key=", ">7.32 %<", ">2.50 s<", "2.0× the baseline", "class=\"spark\""] {
        assert_eq!(shown.matches(expected).count(), 100, "{expected}\n{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_query_that_fails_hides_nothing_but_its_own_answer() -> Result<()> {
    let own = vec![("p".to_owned(), "v2".to_owned())];
    let target = prometheus(own, &[("/query_range ", ERRORS), ("/query ", REQUESTS)])?;
    let world = World::with(&[("PROMETHEUS__URL", &target.url())]).await?;
    world.ship("p").await?;
    let shown = eventually("the last hour", SOON, async || {
        page(&world, "/").await.ok().filter(|page| page.contains("p99 in the last hour"))
    })
    .await?;
    for expected in ["Health is incomplete", "a store is away", "7.32 %", "2.50 s"] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    assert!(!shown.contains("Errors in the last hour") && !shown.contains("blind"), "{shown}");
    Ok(())
}
