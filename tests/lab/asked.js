// What a test asks of the status page: a value that JSON can say.
JSON.stringify((() => {
  const text = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
  const number = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = number(color).slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (number(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (e) => {
    const style = getComputedStyle(e);
    const rect = e.closest("g")?.querySelector("rect");
    const [a, b] = [light(e instanceof SVGElement ? style.fill : style.color), light(rect ? getComputedStyle(rect).fill : ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const written = [...document.querySelectorAll("h1, h2, p, th, td, small, span, li, svg text, #verdict")].filter((e) => e.textContent.trim() && e.offsetParent !== null);
  return {
    verdict: text("#verdict")[0], map: document.querySelector("#map svg")?.getAttribute("aria-label"), boxes: text("#map g text"),
    services: text("#services td"), sessions: text("#sessions td"), path: text("#path td"), withheld: text("#withheld td"),
    images: document.images.length, ran: window.ran ?? null,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    dimmest: Math.min(...written.map(contrast)), ground: getComputedStyle(document.body).backgroundColor,
    unlabelled: document.querySelectorAll("section:not([aria-labelledby]), th:not([scope])").length,
  };
})())
