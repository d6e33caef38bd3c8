//! Tables on a terminal: columns as wide as they must be.

/// A heading, and a line for each row. The first `left` columns are names and stand to the left, the rest are figures
/// and stand to the right.
pub(super) fn lines<const N: usize>(heading: [&str; N], rows: &[[String; N]], left: usize) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let heading = heading.map(str::to_owned);
    let all = std::iter::once(&heading).chain(rows);
    all.map(|cells| line(cells, &widths, left)).collect()
}

fn line(cells: &[String], widths: &[usize], left: usize) -> String {
    let aligned = cells.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
        if column < left {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    aligned.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}
