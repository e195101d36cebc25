() => {
  // texts that are cut at an edge or hard to read
  const found = [], width = document.documentElement.clientWidth;
  const whole = document.documentElement.scrollWidth;
  if (whole > width + 1) found.push(`the page is ${whole} wide, not ${width}`);
  const rgb = colour => (colour.match(/[\d.]+/g) || []).map(Number);
  const over = (above, below) => {
    const alpha = above[3] ?? 1;
    return [0, 1, 2].map(at => alpha * above[at] + (1 - alpha) * below[at]);
  };
  const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const backgrounds = new Map(), clips = new Map();  // of elements, each asked once
  const behind = element => {
    if (!element) return [255, 255, 255];
    if (!backgrounds.has(element))
      backgrounds.set(element, over(rgb(getComputedStyle(element).backgroundColor), behind(element.parentElement)));
    return backgrounds.get(element);
  };
  const clipping = element => {
    if (!element) return null;
    if (!clips.has(element)) {
      const style = getComputedStyle(element);
      clips.set(element, style.overflowX === "visible" ? clipping(element.parentElement) : { element, style });
    }
    return clips.get(element);
  };
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest("svg, dialog:not([open]), noscript, script, style")) continue;
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    if (style.fontSize === "0px") continue;
    for (const node of element.childNodes) {
      if (node.nodeType !== Node.TEXT_NODE || !node.textContent.trim()) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const box = range.getBoundingClientRect();
      const name = `<${element.tagName.toLowerCase()}> ${node.textContent.trim().slice(0, 40)}`;
      const clip = clipping(element);
      const edge = clip ? clip.element.getBoundingClientRect() : { left: 0, right: width };
      const cuts = !clip || (["hidden", "clip"].includes(clip.style.overflowX) && clip.style.textOverflow !== "ellipsis");
      if (cuts && (box.right > edge.right + 1.5 || box.left < edge.left - 1.5)) found.push(`cut: ${name}`);
      if (element.closest(":disabled")) continue;
      const back = behind(element), [one, other] = [light(over(rgb(style.color), back)), light(back)];
      const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)}: ${name}`);
    }
  }
  return [...new Set(found)];
}
