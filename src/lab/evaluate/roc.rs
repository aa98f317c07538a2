//! The curves as an SVG picture, written without a plotting library because the picture needs few elements.

use std::fmt::Write as _;

use super::observation::OURS;
use super::report::{BUDGETS, CURVE_BUDGETS, Detector, Report};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
/// Area of the curves in pixels: left, top, right, bottom.
const FIELD: [f64; 4] = [70.0, 50.0, 640.0, 460.0];
/// Colours by Okabe and Ito, which colour-blind readers can distinguish; the first one is ours.
const COLOURS: [&str; 6] = ["#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];
/// Minimum distance in pixels between two names at the right edge.
const NAME_HEIGHT: f64 = 18.0;

impl Report {
    /// Macro recall over false positives per 1,000 token-days, the latter on a logarithmic scale. Each method has a
    /// curve with its name; dotted lines mark [`BUDGETS`].
    #[must_use]
    pub fn roc_svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"14\">\n\
             <title>Macro recall over false positives per 1,000 token-days</title>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        axes(&mut svg);
        let mut names: Vec<(f64, usize)> = Vec::new();
        for (number, detector) in self.detectors.iter().enumerate() {
            curve(&mut svg, number, detector);
            names.push((y(detector.curve.last().map_or(0.0, |(_, recall)| *recall)), number));
        }
        for (at, number) in spread(names) {
            let weight = if number == OURS { "bold" } else { "normal" };
            let style = format!("fill=\"{}\" font-weight=\"{weight}\" dominant-baseline=\"middle\"", colour(number));
            label(&mut svg, FIELD[2] + 10.0, at, &style, &self.detectors[number].name);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn axes(svg: &mut String) {
    const GRID: &str = "stroke=\"#dddddd\"";
    const DOTTED: &str = "stroke=\"#888888\" stroke-dasharray=\"2 4\"";
    let [left, top, right, bottom] = FIELD;
    label(svg, left, 28.0, "font-size=\"16\"", "Thefts detected (mean over scenarios) at equal false positives");
    for fifth in 0..=5 {
        let at = y(f64::from(fifth) / 5.0);
        line(svg, [left, at, right, at], GRID);
        label(svg, left - 8.0, at, "text-anchor=\"end\" dominant-baseline=\"middle\"", &format!("{} %", fifth * 20));
    }
    for budget in [0.1, 1.0, 10.0, 100.0] {
        let at = x(budget);
        line(svg, [at, top, at, bottom], GRID);
        label(svg, at, bottom + 20.0, "text-anchor=\"middle\"", &budget.to_string());
    }
    for budget in BUDGETS {
        line(svg, [x(budget), top, x(budget), bottom], DOTTED);
    }
    let middle = f64::midpoint(left, right);
    label(svg, middle, bottom + 44.0, "text-anchor=\"middle\"", "false positives per 1,000 token-days");
}

fn curve(svg: &mut String, number: usize, detector: &Detector) {
    let points: Vec<_> =
        detector.curve.iter().map(|(budget, recall)| format!("{:.1},{:.1}", x(*budget), y(*recall))).collect();
    let width = if number == OURS { 3.0 } else { 1.75 };
    let (colour, points) = (colour(number), points.join(" "));
    put(
        svg,
        format_args!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{points}\"/>\n"),
    );
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], style: &str) {
    put(svg, format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>\n"));
}

/// `text` contains no characters that need escapes.
fn label(svg: &mut String, x: f64, y: f64, style: &str, text: &str) {
    put(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>\n"));
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

fn x(budget: f64) -> f64 {
    let (from, to) = CURVE_BUDGETS;
    FIELD[0] + (FIELD[2] - FIELD[0]) * (budget / from).ln() / (to / from).ln()
}

fn y(recall: f64) -> f64 {
    FIELD[3] - (FIELD[3] - FIELD[1]) * recall
}

/// Separates overlapping names: moves them down, and up again if they leave the bottom.
fn spread(mut names: Vec<(f64, usize)>) -> Vec<(f64, usize)> {
    names.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut lowest = f64::INFINITY;
    for at in 1..names.len() {
        names[at].0 = names[at].0.max(names[at - 1].0 + NAME_HEIGHT);
    }
    for name in names.iter_mut().rev() {
        name.0 = name.0.min(FIELD[3]).min(lowest - NAME_HEIGHT);
        lowest = name.0;
    }
    names
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = svg.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_is_logarithmic() {
        let [left, top, right, bottom] = FIELD;
        assert!((x(0.1) - left).abs() < 1e-9 && (x(100.0) - right).abs() < 1e-9);
        assert!((x(10.0) - x(1.0) - (x(1.0) - x(0.1))).abs() < 1e-9);
        assert!((y(0.0) - bottom).abs() < 1e-9 && (y(1.0) - top).abs() < 1e-9);
    }

    #[test]
    fn names_are_separated_and_inside() {
        let bottom = FIELD[3];
        let apart = spread(vec![(bottom, 0), (bottom, 1), (bottom - 5.0, 2), (100.0, 3)]);
        assert_eq!(apart.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [3, 2, 0, 1]);
        for pair in apart.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= NAME_HEIGHT - 1e-9, "{apart:?}");
        }
        assert!(apart.iter().all(|(at, _)| *at <= bottom));
    }
}
