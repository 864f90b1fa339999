const narrow = matchMedia('(max-width: 760px)');
const dark = matchMedia('(prefers-color-scheme: dark)');
const charts = [...document.querySelectorAll('script[data-chart]')].map(
  (script) => ({element: document.getElementById(script.dataset.chart), ...JSON.parse(script.textContent)})
);

function draw() {
  const template = templates[dark.matches ? 'dark' : 'light'];
  for (const {element, data, layout} of charts) {
    Plotly.react(element, data, {...layout[narrow.matches ? 1 : 2], template}, {responsive: true, displayModeBar: false});
  }
}

narrow.addEventListener('change', draw);
dark.addEventListener('change', draw);
draw();
