"""Small charts as points in the coordinates of inline SVG; the templates draw them."""
