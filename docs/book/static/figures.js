// Draws the plotly figures of the notebooks, each when it comes into view, in the page's colours.

(() => {
  const colours = () => {
    const style = getComputedStyle(document.body);
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: style.getPropertyValue("--color-foreground-primary").trim() },
    };
  };

  function draw(element) {
    const { data, layout } = JSON.parse(element.querySelector("script").textContent);
    element.style.height = `${layout.height ?? 480}px`;
    window.Plotly.newPlot(element, data, { ...layout, ...colours() }, { responsive: true, displaylogo: false });
  }

  const seen = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "200px" });
  const elements = document.querySelectorAll(".davae-plotly");
  elements.forEach((element) => seen.observe(element));

  const recolour = () => elements.forEach((element) => {
    if (element.classList.contains("js-plotly-plot")) window.Plotly.relayout(element, colours());
  });
  new MutationObserver(recolour).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
})();
