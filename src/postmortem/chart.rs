//! The picture of an incident: the metric of both versions around the rollback, with its threshold.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::lettering::Lettered;
use super::samples::{SampleSeries, Samples, Unit};
use crate::decision::Timestamp;

/// In the SVG's pixels.
const SIZE: (u32, u32) = (800, 400);
/// The bitmap is drawn larger by this factor and then shrunk two by two, because plotters' thick lines have hard edges.
const DRAWN: u32 = 3;
const SHRUNK: u32 = 2;
const FONT: &str = "sans-serif";
const MAX_LABEL: usize = 80;
/// Larger values are indistinguishable in a picture; keeps the arithmetic finite.
const MAX_VALUE: f64 = 1e15;
/// About eight thousand years in milliseconds, all of which have a calendar date.
const MAX_TIME: i64 = 250_000_000_000_000;
const SECOND: i64 = 1_000;
const DAY: i64 = 24 * 3_600 * SECOND;

const BAD: RGBColor = RGBColor(204, 51, 17);
const GOOD: RGBColor = RGBColor(0, 119, 187);
const LINES: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(225, 225, 225);

#[derive(Debug, thiserror::Error)]
#[error("cannot draw the picture: {0}")]
pub struct ChartError(String);

impl ChartError {
    fn because(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The picture as SVG text. The same samples give the same bytes.
pub fn svg(samples: &Samples, switch: Option<Timestamp>) -> Result<String, ChartError> {
    let mut text = String::new();
    let backend = Lettered::measured(SVGBackend::with_string(&mut text, SIZE)).ok_or_else(no_font)?;
    let area = backend.into_drawing_area();
    draw(&area, 1, samples, switch)?;
    drop(area);
    Ok(text)
}

/// The picture as a PNG of 1200 × 600 pixels.
pub fn png(samples: &Samples, switch: Option<Timestamp>) -> Result<Vec<u8>, ChartError> {
    let (width, height) = (SIZE.0 * DRAWN, SIZE.1 * DRAWN);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let backend = Lettered::drawn(BitMapBackend::with_buffer(&mut pixels, (width, height))).ok_or_else(no_font)?;
    let area = backend.into_drawing_area();
    draw(&area, DRAWN, samples, switch)?;
    drop(area);
    let pixels = shrink(&pixels, width as usize);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width / SHRUNK, height / SHRUNK);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(ChartError::because)?;
    writer.write_image_data(&pixels).map_err(ChartError::because)?;
    writer.finish().map_err(ChartError::because)?;
    Ok(bytes)
}

/// The mean of each block of `SHRUNK` × `SHRUNK` pixels.
fn shrink(pixels: &[u8], width: usize) -> Vec<u8> {
    let (block, row) = (SHRUNK as usize, width * 3);
    let mut small = Vec::with_capacity(pixels.len() / (block * block));
    for rows in pixels.chunks_exact(row * block) {
        for x in (0..row).step_by(3 * block) {
            for channel in 0..3 {
                let inside = (0..block * block).map(|i| rows[i / block * row + x + i % block * 3 + channel]);
                let sum: usize = inside.map(usize::from).sum();
                small.push((sum / (block * block)) as u8);
            }
        }
    }
    small
}

fn no_font() -> ChartError {
    ChartError::because("cannot read the font")
}

/// One version's line, in pieces if there are gaps.
struct Line<'a> {
    version: &'a str,
    role: &'static str,
    color: RGBColor,
    pieces: Vec<Vec<(f64, f64)>>,
}

/// A line of the legend.
struct LegendEntry {
    text: String,
    color: RGBColor,
    dashed: bool,
}

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    scale: u32,
    samples: &Samples,
    switch: Option<Timestamp>,
) -> Result<(), ChartError> {
    area.fill(&WHITE).map_err(ChartError::because)?;
    let px = |size: u32| size * scale;
    let at = |size: u32| (size * scale) as i32;
    let text = (FONT, px(15)).into_font().color(&BLACK);
    let small = (FONT, px(13)).into_font().color(&LINES);

    let threshold = samples.threshold.filter(|value| value.is_finite()).map(|value| value.clamp(-MAX_VALUE, MAX_VALUE));
    let (roles, mark) = match samples.is_shipped {
        true => ([(BAD, "replaced"), (GOOD, "replacement")], "replacement"),
        false => ([(BAD, "rolled back"), (GOOD, "rolled back to")], "rollback"),
    };
    let lines: Vec<Line<'_>> = roles
        .into_iter()
        .zip(samples.series())
        .map(|((color, role), series)| Line { version: &series.version, role, color, pieces: pieces(series) })
        .collect();
    let points = || lines.iter().flat_map(|line| &line.pieces).flatten().copied();
    let switch = switch.map(|switch| switch.0).filter(|at| is_drawable(*at));
    let times = Times::of(points().map(|point| point.0), switch);
    let (low, high) = value_range(points().map(|point| point.1).chain(threshold), samples.unit);

    let entry = |line: &Line<'_>| {
        let note = if line.pieces.is_empty() { ", no data" } else { "" };
        let text = format!("{} ({}{note})", shortened(line.version), line.role);
        LegendEntry { text, color: line.color, dashed: false }
    };
    let mut entries: Vec<LegendEntry> = lines.iter().map(entry).collect();
    entries.extend(threshold.map(|value| LegendEntry {
        text: format!("threshold {}", samples.unit.format(value)),
        color: LINES,
        dashed: true,
    }));
    let used = legend(area, scale, &entries, &text)?;

    let (_, below) = area.split_vertically(used);
    let mut chart = ChartBuilder::on(&below)
        .margin(px(10))
        .margin_right(px(25))
        .x_label_area_size(px(42))
        .y_label_area_size(px(75))
        .build_cartesian_2d(times.clone(), low..high)
        .map_err(ChartError::because)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(scale))
        .axis_style(LINES.stroke_width(scale))
        .set_all_tick_mark_size(px(4))
        .x_desc(times.described())
        .y_desc(shortened(&samples.label))
        .axis_desc_style(text.clone())
        .label_style(small.clone())
        .y_labels(6)
        .y_label_formatter(&|value| samples.unit.format(*value))
        .draw()
        .map_err(ChartError::because)?;

    let dashed = |from: (f64, f64), to: (f64, f64), color: RGBColor| {
        DashedLineSeries::new([from, to], px(6), px(4), color.stroke_width(px(2) - scale / 2))
    };
    if let Some(threshold) = threshold {
        let line = dashed((times.low, threshold), (times.high, threshold), LINES);
        chart.draw_series(line).map_err(ChartError::because)?;
    }
    for Line { color, pieces, .. } in &lines {
        for piece in pieces {
            match piece[..] {
                // a line of one point would be invisible
                [point] => chart.draw_series([Circle::new(point, at(3), color.filled())]),
                _ => chart.draw_series(LineSeries::new(piece.iter().copied(), color.stroke_width(px(2)))),
            }
            .map_err(ChartError::because)?;
        }
    }
    if let Some(switch) = switch.map(|at| at as f64) {
        chart.draw_series(dashed((switch, low), (switch, high), BLACK)).map_err(ChartError::because)?;
        let right = switch > times.low + (times.high - times.low) * 0.7;
        let (side, gap) = if right { (HPos::Right, -at(6)) } else { (HPos::Left, at(6)) };
        let style = text.pos(Pos::new(side, VPos::Top));
        let words = format!("{mark} {}", clock(switch as i64, "%H:%M:%S"));
        let mark = EmptyElement::at((switch, high)) + Text::new(words, (gap, at(2)), style);
        chart.draw_series([mark]).map_err(ChartError::because)?;
    }
    if points().next().is_none() {
        let style = text.pos(Pos::new(HPos::Center, VPos::Center));
        let middle = ((times.low + times.high) / 2.0, (low + high) / 2.0);
        chart.draw_series([Text::new("no data", middle, style)]).map_err(ChartError::because)?;
    }
    area.present().map_err(ChartError::because)
}

/// Draws the legend in as many rows as needed, and returns their height.
fn legend<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    scale: u32,
    entries: &[LegendEntry],
    style: &TextStyle<'_>,
) -> Result<u32, ChartError> {
    let px = |size: i32| size * scale as i32;
    let (left, row) = (px(20), px(22));
    let (mut x, mut y) = (left, px(8));
    let style = style.pos(Pos::new(HPos::Left, VPos::Center));
    for entry in entries {
        let (width, _) = area.estimate_text_size(&entry.text, &style).map_err(ChartError::because)?;
        let needed = px(30) + width as i32;
        if x > left && x + needed > px(SIZE.0 as i32) {
            (x, y) = (left, y + row);
        }
        let (middle, stroke) = (y + row / 2, entry.color.stroke_width(2 * scale));
        let strokes = if entry.dashed { &[(0, 9), (13, 22)][..] } else { &[(0, 22)] };
        for (from, to) in strokes {
            let line = PathElement::new([(x + px(*from), middle), (x + px(*to), middle)], stroke);
            area.draw(&line).map_err(ChartError::because)?;
        }
        area.draw(&Text::new(entry.text.as_str(), (x + px(30), middle), style.clone())).map_err(ChartError::because)?;
        x += needed + px(25);
    }
    Ok((y + row).unsigned_abs())
}

fn pieces(series: &SampleSeries) -> Vec<Vec<(f64, f64)>> {
    let points = series.points().split(|(at, value)| value.is_none() || !is_drawable(*at));
    let piece = |points: &[(i64, Option<f64>)]| -> Vec<(f64, f64)> {
        let known = points.iter().filter_map(|(at, value)| Some((*at as f64, (*value)?)));
        known.map(|(at, value)| (at, value.clamp(-MAX_VALUE, MAX_VALUE))).collect()
    };
    points.map(piece).filter(|piece| !piece.is_empty()).collect()
}

fn is_drawable(at: i64) -> bool {
    (-MAX_TIME..=MAX_TIME).contains(&at)
}

/// From zero, if no value is negative, to a little above all values.
fn value_range(values: impl Iterator<Item = f64>, unit: Unit) -> (f64, f64) {
    let (low, high) = values.fold((0.0, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
    if high - low < 1e-9 {
        let room = if unit == Unit::Ratio { 0.01 } else { 1.0 };
        return (low, low + room);
    }
    (low * 1.1, high * 1.1)
}

/// The time axis, in milliseconds since the Unix epoch.
#[derive(Clone)]
struct Times {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    step: i64,
}

impl Times {
    /// A range that contains all points.
    fn of(points: impl Iterator<Item = f64>, switch: Option<i64>) -> Self {
        let all = points.chain(switch.map(|at| at as f64));
        let range = all.fold(None, |range: Option<(f64, f64)>, at| {
            Some(range.map_or((at, at), |(low, high)| (low.min(at), high.max(at))))
        });
        let (low, high) = range.unwrap_or((0.0, 0.0));
        // a single moment is shown within its minute
        let (low, high) = if high - low < 1.0 { (low - 30_000.0, high + 30_000.0) } else { (low, high) };
        let step = step(high - low);
        let first = (low / step as f64).ceil() as i64;
        let last = (high / step as f64).floor() as i64;
        Self { low, high, ticks: (first..=last).map(|n| (n * step) as f64).collect(), step }
    }

    fn described(&self) -> String {
        let [first, last] = [self.low, self.high].map(|at| clock(at as i64, "%Y-%m-%d"));
        if first == last { format!("{first}, UTC") } else { format!("{first} to {last}, UTC") }
    }
}

impl Ranged for Times {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, at: &f64, (left, right): (i32, i32)) -> i32 {
        let share = (at - self.low) / (self.high - self.low);
        left + (f64::from(right - left) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Times {
    fn format_ext(&self, at: &f64) -> String {
        let format = match self.step {
            ..60_000 => "%H:%M:%S",
            DAY.. => "%Y-%m-%d",
            _ if self.high - self.low > DAY as f64 => "%m-%d %H:%M",
            _ => "%H:%M",
        };
        clock(*at as i64, format)
    }
}

/// The smallest round step with at most eight marks.
fn step(span: f64) -> i64 {
    const SECONDS: [i64; 20] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800,
        604_800,
    ];
    let fits = |step: &i64| span / (*step as f64) <= 8.0;
    SECONDS.map(|seconds| seconds * SECOND).into_iter().find(fits).unwrap_or_else(|| {
        let days = (span / 8.0 / DAY as f64).ceil();
        days as i64 * DAY
    })
}

fn clock(at: i64, format: &str) -> String {
    jiff::Timestamp::from_millisecond(at).map(|at| at.strftime(format).to_string()).unwrap_or_default()
}

fn shortened(text: &str) -> String {
    let clean = text.chars().map(|c| if crate::visible::is_hidden(c) { ' ' } else { c });
    if text.chars().count() <= MAX_LABEL { clean.collect() } else { clean.take(MAX_LABEL).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
