//! Letters for plotters, which has none without the system's fonts. The font is compiled in, because containers have
//! none.

use ab_glyph_rasterizer::{Point, Rasterizer, point};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};
use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{FontRef, GlyphId, MetadataProvider};

static FONT: &[u8] = include_bytes!("font/DejaVuSans-Latin.ttf");
/// The size of letters in relation to plotters' size of a text, as in its SVGs.
const EM: f64 = 1.0 / 1.24;
/// The baseline below the top of a line, in relation to the letters' size. As in plotters' SVGs.
const BASELINE: f32 = 0.76;

/// A backend of plotters that measures texts by their letters.
pub struct Lettered<B> {
    backend: B,
    font: FontRef<'static>,
    /// The backend has only pixels, so letters are drawn for it.
    draws: bool,
}

impl<B: DrawingBackend> Lettered<B> {
    /// For a backend that writes texts itself.
    pub fn measured(backend: B) -> Option<Self> {
        Some(Self { backend, font: FontRef::new(FONT).ok()?, draws: false })
    }

    /// For a backend of pixels.
    pub fn drawn(backend: B) -> Option<Self> {
        Some(Self { backend, font: FontRef::new(FONT).ok()?, draws: true })
    }

    /// The letters of `text` with their positions, and the total width.
    fn layout(&self, text: &str, em: f32) -> (Vec<(GlyphId, f32)>, f32) {
        let (map, metrics) = (self.font.charmap(), self.font.glyph_metrics(Size::new(em), LocationRef::default()));
        let mut at = 0.0;
        let place = |letter: char| {
            // a character that the font lacks becomes a box
            let glyph = map.map(letter).unwrap_or(GlyphId::NOTDEF);
            let here = at;
            at += metrics.advance_width(glyph).unwrap_or_default();
            (glyph, here)
        };
        let placed = text.chars().map(place).collect();
        (placed, at)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "sizes of texts in a picture")]
fn em<S: BackendTextStyle>(style: &S) -> f32 {
    (style.size() * EM) as f32
}

impl<B: DrawingBackend> DrawingBackend for Lettered<B> {
    type ErrorType = B::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.backend.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.present()
    }

    fn draw_pixel(&mut self, at: BackendCoord, color: BackendColor) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.draw_pixel(at, color)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.draw_rect(from, to, style, fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.draw_path(path, style)
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.draw_circle(center, radius, style, fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.backend.fill_polygon(corners, style)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of texts in a picture")]
    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        if !self.draws {
            return self.backend.draw_text(text, style, at);
        }
        let (em, ink) = (em(style), style.color());
        let (letters, width) = self.layout(text, em);
        // letters may extend beyond their own width, and below the line
        let margin = em / 2.0;
        let (columns, rows) = ((width + 2.0 * margin).ceil() as usize, (2.0 * em).ceil() as usize);
        let mut pen = Pen::new(Rasterizer::new(columns, rows), margin + BASELINE * em);
        let outlines = self.font.outline_glyphs();
        for (glyph, begins) in letters {
            let Some(outline) = outlines.get(glyph) else { continue };
            pen.left = margin + begins;
            // a letter that cannot be drawn leaves a gap
            let _ = outline.draw(DrawSettings::unhinted(Size::new(em), LocationRef::default()), &mut pen);
        }
        let anchor = style.anchor();
        let left = match anchor.h_pos {
            HPos::Left => 0.0,
            HPos::Center => -width / 2.0,
            HPos::Right => -width,
        };
        let top = match anchor.v_pos {
            VPos::Top => 0.0,
            VPos::Center => -em / 2.0,
            VPos::Bottom => -em,
        };
        let (left, top) = ((left - margin).round() as i32, (top - margin).round() as i32);
        let (transform, (limit_x, limit_y)) = (style.transform(), self.get_size());
        let mut result = Ok(());
        pen.canvas.for_each_pixel_2d(|x, y, covered| {
            let (x, y) = transform.transform(left + x as i32, top + y as i32);
            let (x, y) = (at.0 + x, at.1 + y);
            let inside = (0..limit_x as i32).contains(&x) && (0..limit_y as i32).contains(&y);
            if covered > 0.0 && inside && result.is_ok() {
                let alpha = ink.alpha * f64::from(covered.min(1.0));
                result = self.backend.draw_pixel((x, y), BackendColor { alpha, ..ink });
            }
        });
        result
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of texts in a picture")]
    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let em = em(style);
        let (_, width) = self.layout(text, em);
        Ok((width.ceil() as u32, em.ceil() as u32))
    }
}

/// Follows the outlines of letters, whose y grows upwards.
struct Pen {
    canvas: Rasterizer,
    left: f32,
    baseline: f32,
    began: Point,
    last: Point,
}

impl Pen {
    fn new(canvas: Rasterizer, baseline: f32) -> Self {
        let nowhere = point(0.0, 0.0);
        Self { canvas, left: 0.0, baseline, began: nowhere, last: nowhere }
    }

    fn at(&self, x: f32, y: f32) -> Point {
        point(self.left + x, self.baseline - y)
    }
}

impl OutlinePen for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.last = self.at(x, y);
        self.began = self.last;
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let to = self.at(x, y);
        self.canvas.draw_line(self.last, to);
        self.last = to;
    }

    fn quad_to(&mut self, cx0: f32, cy0: f32, x: f32, y: f32) {
        let (control, to) = (self.at(cx0, cy0), self.at(x, y));
        self.canvas.draw_quad(self.last, control, to);
        self.last = to;
    }

    fn curve_to(&mut self, cx0: f32, cy0: f32, cx1: f32, cy1: f32, x: f32, y: f32) {
        let to = self.at(x, y);
        self.canvas.draw_cubic(self.last, self.at(cx0, cy0), self.at(cx1, cy1), to);
        self.last = to;
    }

    fn close(&mut self) {
        self.canvas.draw_line(self.last, self.began);
        self.last = self.began;
    }
}
