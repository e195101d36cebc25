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
  const behind = element => {
    const layers = [];
    for (let up = element; up; up = up.parentElement) layers.push(rgb(getComputedStyle(up).backgroundColor));
    return layers.reverse().reduce((below, above) => over(above, below), [255, 255, 255]);
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
      let clip = element;
      while (clip && getComputedStyle(clip).overflowX === "visible") clip = clip.parentElement;
      const how = clip && getComputedStyle(clip);
      const edge = clip ? clip.getBoundingClientRect() : { left: 0, right: width };
      const cuts = !clip || (["hidden", "clip"].includes(how.overflowX) && how.textOverflow !== "ellipsis");
      if (cuts && (box.right > edge.right + 1.5 || box.left < edge.left - 1.5)) found.push(`cut: ${name}`);
      if (element.closest(":disabled")) continue;
      const back = behind(element), [one, other] = [light(over(rgb(style.color), back)), light(back)];
      const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)}: ${name}`);
    }
  }
  return [...new Set(found)];
}
