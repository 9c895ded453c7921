use std::io::Cursor;

use super::*;

/// 2026-11-21T00:38:12Z
const SWITCH: i64 = 1_795_221_492_000;

/// An error ratio that rises on `v2.1.0` until the rollback, and stays low on `v2.0.9` after it.
fn samples(points: i64) -> Samples {
    let times = (0..points).map(|i| SWITCH + (i - points / 2) * 5_000);
    let bad = times.clone().filter(|at| *at <= SWITCH).map(|at| {
        let before = (SWITCH - at) as f64 / 1_000.0;
        (at, if before > 60.0 { 0.004 } else { 0.09 - before / 1_000.0 })
    });
    let good = times.filter(|at| *at >= SWITCH).map(|at| (at, 0.003));
    Samples {
        label: "error ratio".to_owned(),
        unit: Unit::Ratio,
        threshold: Some(0.05),
        step_ms: 5_000,
        bad: SampleSeries::new("v2.1.0", bad.collect::<Vec<_>>()),
        good: Some(SampleSeries::new("v2.0.9", good.collect::<Vec<_>>())),
        ..Samples::default()
    }
}

fn drawn(samples: &Samples, switch: Option<i64>) -> String {
    svg(samples, switch.map(Timestamp)).unwrap()
}

/// Width, height and the pixels.
fn decoded(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width, info.height, pixels)
}

fn count(pixels: &[u8], color: RGBColor) -> usize {
    pixels.chunks_exact(3).filter(|pixel| *pixel == [color.0, color.1, color.2]).count()
}

/// The texts in an SVG, in the order in which they are drawn.
fn texts(svg: &str) -> Vec<&str> {
    svg.split("<text")
        .skip(1)
        .map(|text| text.split_once('>').unwrap().1.split("</text>").next().unwrap().trim())
        .collect()
}

#[test]
fn both_versions_the_threshold_and_the_rollback_are_in_the_picture() {
    let (svg, png) = (drawn(&samples(120), Some(SWITCH)), png(&samples(120), Some(Timestamp(SWITCH))).unwrap());
    let said = texts(&svg);
    for expected in [
        "v2.1.0 (rolled back)",
        "v2.0.9 (rolled back to)",
        "threshold 5 %",
        "error ratio",
        "2026-11-21, UTC",
        "00:38",
        "rollback 00:38:12",
        "2 %",
    ] {
        assert!(said.contains(&expected), "{expected} in {said:?}");
    }
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    let (width, height, pixels) = decoded(&png);
    assert_eq!((width, height), (1_200, 600));
    for color in [BAD, GOOD, LINES, BLACK] {
        assert!(count(&pixels, color) > 100, "{color:?}");
    }
}

#[test]
fn a_version_that_was_replaced_was_not_rolled_back() {
    let svg = drawn(&Samples { is_shipped: true, ..samples(120) }, Some(SWITCH));
    for expected in ["v2.1.0 (replaced)", "v2.0.9 (replacement)", "replacement 00:38:12"] {
        assert!(texts(&svg).contains(&expected), "{expected} in {:?}", texts(&svg));
    }
}

#[test]
fn the_same_samples_make_the_same_bytes() {
    assert_eq!(drawn(&samples(600), Some(SWITCH)), drawn(&samples(600), Some(SWITCH)));
}

#[test]
fn what_can_not_be_drawn_is_a_gap() {
    let with = |points: Vec<(i64, f64)>| Samples { bad: SampleSeries::new("v2", points), good: None, ..samples(0) };
    let lines = |samples: &Samples| svg(samples, None).unwrap().matches("#CC3311").count();
    let whole = with((0..9).map(|i| (SWITCH + i * 5_000, 0.05)).collect());
    let broken: Vec<_> = (0..9).map(|i| (SWITCH + i * 5_000, if i == 4 { f64::NAN } else { 0.05 })).collect();
    assert_eq!(lines(&with(broken)), lines(&whole) + 1, "two lines instead of one");
    let lonely = [(SWITCH, 0.1), (SWITCH + 1, f64::INFINITY), (SWITCH + 2, 0.2)];
    assert_eq!(svg(&with(lonely.into()), None).unwrap().matches("<circle").count(), 2, "two points");
}

#[test]
fn a_chart_without_samples_says_no_data() {
    for switch in [None, Some(SWITCH)] {
        assert!(texts(&drawn(&Samples::default(), switch)).contains(&"no data"), "{switch:?}");
    }
}

#[test]
fn no_figures_make_it_panic() {
    let extremes = [0.0, -0.0, 1e-300, -1e-12, 1.0, 1e15, f64::MAX, f64::MIN, f64::NAN, f64::NEG_INFINITY];
    let times = [i64::MIN, i64::MAX, 0, SWITCH, SWITCH + 1, -MAX_TIME, MAX_TIME, 1];
    for (i, value) in extremes.into_iter().enumerate() {
        for (j, pair) in times.windows(2).enumerate() {
            let bad = SampleSeries::new("v2", [(pair[0], value), (pair[1], extremes[(i + j) % extremes.len()])]);
            let samples = Samples { bad, threshold: Some(value), unit: Unit::Seconds, ..Samples::default() };
            svg(&samples, Some(Timestamp(pair[0]))).unwrap();
        }
    }
    // characters that the font lacks, and a line that leaves the picture
    for (name, value) in [("エラー\0", f64::NAN), ("", f64::MAX)] {
        let bad = SampleSeries::new(name, [(SWITCH, value), (SWITCH + 60_000, 0.5)]);
        png(&Samples { bad, threshold: Some(value), ..Samples::default() }, Some(Timestamp(i64::MAX))).unwrap();
    }
}

#[test]
fn texts_from_elsewhere_stay_texts() {
    let long = "x".repeat(100_000);
    for label in ["</text><script>alert(1)</script>", "a\n\u{0}b", "エラー率", &long] {
        let samples = Samples {
            label: label.to_owned(),
            bad: SampleSeries::new(label, [(SWITCH, 0.5), (SWITCH + 1_000, 0.5)]),
            ..samples(10)
        };
        let svg = drawn(&samples, Some(SWITCH));
        assert!(!svg.contains("<script") && !svg.contains('\0'), "{svg}");
        assert!(svg.len() < 20_000, "{} bytes", svg.len());
    }
}

#[test]
fn time_is_marked_at_round_moments() {
    let marks = |seconds: f64| {
        let low = SWITCH as f64;
        let times = Times::of([low, low + seconds * 1_000.0].into_iter(), None);
        times.ticks.iter().map(|at| times.format_ext(at)).collect::<Vec<_>>()
    };
    assert_eq!(marks(7.0)[..3], ["00:38:12", "00:38:13", "00:38:14"]);
    assert_eq!(marks(900.0)[..3], ["00:40", "00:42", "00:44"]);
    assert_eq!(marks(172_800.0)[..2], ["11-21 06:00", "11-21 12:00"]);
    assert_eq!(marks(864_000.0)[..2], ["2026-11-23", "2026-11-25"]);
    for seconds in [0.0, 0.001, 1.0, 59.0, 3_601.0, 1e6, 1e8, 4e11] {
        assert!((1..=9).contains(&marks(seconds).len()), "{seconds} s: {:?}", marks(seconds));
    }
}

#[test]
fn values_begin_at_zero_and_have_room_above() {
    assert_eq!(value_range([0.05, 0.1].into_iter(), Unit::Ratio), (0.0, 0.1 * 1.1));
    assert_eq!(value_range([-1.0, 2.0].into_iter(), Unit::Number), (-1.1, 2.2));
    assert_eq!(value_range(std::iter::empty(), Unit::Ratio), (0.0, 0.01));
}

#[test]
fn labels_have_no_hidden_characters() {
    assert_eq!(shortened("v2\u{202e}\u{9b}\u{2028}x"), "v2   x");
}
