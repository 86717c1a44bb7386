"""Charts as values, drawn as SVG or PNG without a plotting library, and the HTML page that carries them.

`model` says what a chart holds, `axes` where its ticks stand, `layout` turns it into `shapes` with places, `svg`
and `png` draw those, `page` makes a page that stands alone. Nothing here knows what the numbers mean.
"""
