// Search of the site from a folder (file://): browsers refuse web workers there, so a hidden frame takes their place.
if (window.location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.inner = frame.contentWindow
      this.waiting = []
      this.inner.importScripts = (...urls) =>
        urls.reduce(
          (before, one) =>
            before.then(
              () =>
                new Promise((resolve, reject) => {
                  const script = this.inner.document.createElement("script")
                  script.src = new URL(one, url).href
                  script.onload = resolve
                  script.onerror = () => reject(new Error(`cannot load ${script.src}`))
                  this.inner.document.body.appendChild(script)
                }),
            ),
          Promise.resolve(),
        )
      // In a worker, postMessage goes to whoever started it.
      this.inner.postMessage = (data) => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      const script = this.inner.document.createElement("script")
      script.src = url
      script.onload = () => {
        this.ready = true
        this.waiting.splice(0).forEach((data) => this.deliver(data))
      }
      this.inner.document.body.appendChild(script)
    }

    deliver(data) {
      this.inner.dispatchEvent(new this.inner.MessageEvent("message", { data }))
    }

    postMessage(data) {
      if (this.ready) this.deliver(data)
      else this.waiting.push(data)
    }

    terminate() {}
  }
}
