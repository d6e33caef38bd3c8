"""Small charts of two panels, as SVG, in the colours of this house."""

INK, FAINT, LINES = "#1f2933", "#66707a", "#e3e7ea"
OURS, THEIRS = "#0b6e99", "#c2571a"
WIDTH, HEIGHT = 860, 380
TOP, PANEL_WIDTH, PANEL_HEIGHT = 58, 310, 230
LEFTS = (64, 514)


def chart(panels, designs, about):
    """Panels side by side, a legend of the designs with their colours below, and in a corner what it is about."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
    ]
    for left, panel in zip(LEFTS, panels):
        parts += draw(left, **panel)
    for number, (design, colour) in enumerate(designs.items()):
        x = LEFTS[0] + number * 130
        parts.append(f'<circle cx="{x + 6}" cy="352" r="6" fill="{colour}"/><text x="{x + 18}" y="357" fill="{INK}">{design}</text>')
    parts.append(f'<text x="{LEFTS[1] + PANEL_WIDTH}" y="357" text-anchor="end" fill="{FAINT}">{about}</text></svg>')
    return "\n".join(parts) + "\n"


def nice(largest):
    """Round numbers from 0 to just above the largest: four to six of them."""
    unit = 10.0 ** (len(str(int(largest))) - 1)
    step = next(step * unit for step in (0.2, 0.5, 1, 2, 5) if largest / (step * unit) <= 5)
    return [step * number for number in range(int(-(-largest // step)) + 1)]


def draw(left, title, labels, below, lines, ticks, limit=None):
    """A panel. `lines` are of a colour and a value for each label; `limit` draws a dotted line at a value."""
    across = [left + PANEL_WIDTH * number / max(len(labels) - 1, 1) for number in range(len(labels))]
    up = lambda amount: TOP + PANEL_HEIGHT * (1 - amount / ticks[-1])
    right, bottom = left + PANEL_WIDTH, TOP + PANEL_HEIGHT
    parts = [f'<text x="{left}" y="34" font-size="15" font-weight="600" fill="{INK}">{title}</text>']
    for tick in ticks:
        parts.append(f'<line x1="{left}" x2="{right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="{LINES}"/>')
        parts.append(f'<text x="{left - 10}" y="{up(tick) + 4:.1f}" text-anchor="end" fill="{FAINT}">{tick:,g}</text>')
    if limit:
        parts.append(f'<line x1="{left}" x2="{right}" y1="{up(limit):.1f}" y2="{up(limit):.1f}" stroke="{INK}" stroke-dasharray="2 4"/>')
        parts.append(f'<text x="{right}" y="{up(limit) - 8:.1f}" text-anchor="end" fill="{INK}">the limit</text>')
    for label, x in zip(labels, across):
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle" fill="{FAINT}">{label}</text>')
    parts.append(f'<text x="{left + PANEL_WIDTH / 2}" y="{bottom + 40}" text-anchor="middle" fill="{FAINT}">{below}</text>')
    for colour, values in lines:
        points = [(x, up(value)) for x, value in zip(across, values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-linejoin="round"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}" stroke="#ffffff" stroke-width="1.5"/>' for x, y in points]
    return parts
