'use strict';
// Draws plots when they come into view, in the page's colours; before printing, draws all of them in a small size.
(() => {
  // CSS pixels: three plots side by side on landscape A4, or one.
  const WIDTH_IN_PRINT = 330;
  const SINGLE_IN_PRINT = 520;
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']],
    // By default plotly has a button that uploads the chart.
    showSendToCloud: false,
    plotlyServerURL: '',
  };
  const undrawn = new Set(document.querySelectorAll('.plot'));

  const colours = layout => {
    const style = getComputedStyle(document.documentElement);
    const of = name => style.getPropertyValue(name).trim();
    const changes = { 'font.color': of('--ink'), 'hoverlabel.bgcolor': of('--raised'), 'hoverlabel.font.color': of('--ink') };
    Object.assign(changes, {
      'hoverlabel.bordercolor': of('--line'),
      'modebar.bgcolor': 'rgba(0,0,0,0)',
      'modebar.color': of('--soft'),
      'modebar.activecolor': of('--ink'),
    });
    for (const axis of Object.keys(layout).filter(key => /^[xy]axis/.test(key))) {
      for (const part of ['gridcolor', 'linecolor', 'tickcolor', 'zerolinecolor']) changes[`${axis}.${part}`] = of('--line');
    }
    return changes;
  };

  const draw = plot => {
    undrawn.delete(plot);
    const { data, layout } = JSON.parse(plot.nextElementSibling.textContent);
    Plotly.newPlot(plot, data, layout, CONFIG);
    Plotly.relayout(plot, colours(layout));
  };

  const watch = new IntersectionObserver(entries => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      if (undrawn.has(target)) draw(target);
    }
  }, { rootMargin: '400px' });
  for (const plot of undrawn) watch.observe(plot);

  const drawn = () => [...document.querySelectorAll('.plot')].filter(plot => !undrawn.has(plot));
  const recolour = () => drawn().forEach(plot => Plotly.relayout(plot, colours(plot.layout)));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', recolour);

  matchMedia('print').addEventListener('change', ({ matches }) => {
    if (matches) [...undrawn].forEach(draw);
    for (const plot of drawn()) {
      const width = plot.closest('.single') ? SINGLE_IN_PRINT : WIDTH_IN_PRINT;
      const size = matches ? { width, autosize: false } : { width: null, autosize: true };
      Plotly.relayout(plot, { ...size, ...colours(plot.layout) });
    }
  });
})();
