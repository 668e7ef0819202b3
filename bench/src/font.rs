//! The one font of all plots. It comes with the program: a machine that measures need not have any.

use std::sync::Once;

use plotters::style::{FontStyle, register_font};

/// What the font is called where text is drawn. In SVG it is the viewer's own sans-serif, of much the same widths.
pub(crate) const NAME: &str = "sans-serif";

/// Makes [`NAME`] known; any number of times.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let known = register_font(NAME, FontStyle::Normal, dejavu::sans::regular());
        assert!(known.is_ok(), "the font that is built in is a font");
    });
}
